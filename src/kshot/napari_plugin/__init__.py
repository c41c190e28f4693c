"""A plug-in of napari: paint a slice in a Labels layer, and get the labels of all other slices. Needs napari.

napari finds it by `napari.yaml` beside this file; `layers` knows neither napari nor Qt, `widget` both.
"""
