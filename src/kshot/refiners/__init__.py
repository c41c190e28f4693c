"""Refiners: from scores on the grid to scores at the image's own size."""
