"""Sentences around a class's name whose embeddings are averaged.

The 80 that CLIP's authors chose on ImageNet (Radford et al., ICML 2021, section 3.1.4 and the notebook "Prompt
engineering for ImageNet"), written as the words they are made of: nearly all of them come with both articles.
"""

_PHOTOS = (
    "bad",
    "good",
    "cropped",
    "bright",
    "dark",
    "blurry",
    "close-up",
    "low resolution",
    "pixelated",
    "jpeg corrupted",
    "black and white",
)
_THINGS = ("hard to see", "clean", "dirty", "cool", "nice", "weird", "large", "small")
_WORKS = (
    "a photo",
    "itap",  # "I took a picture", as photographers' forums have it
    "art",
    "a painting",
    "a drawing",
    "a sketch",
    "a doodle",
    "graffiti",
    "a tattoo",
    "a sculpture",
    "a rendering",
    "a rendition",
)
_STUFFS = ("embroidered", "plastic", "origami", "toy", "cartoon", "plushie")

TEMPLATES = (
    *(f"a {kind} photo of {article} {{}}." for kind in _PHOTOS for article in ("a", "the")),
    *(f"a photo of {article} {kind} {{}}." for kind in _THINGS for article in ("a", "the")),
    *(f"{work} of {article} {{}}." for work in _WORKS for article in ("a", "the")),
    *(f"{article} {stuff} {{}}." for stuff in _STUFFS for article in ("a", "the")),
    *(f"{article} {{}} in a video game." for article in ("a", "the")),
    "a photo of many {}.",
    "a photo of one {}.",
    "a photo of my {}.",
    "itap of my {}.",
)
