"""`kshot serve`: a page on which a person paints on one image and watches the class appear in all the others.

The output folder is that of `kshot label`: masks, manifest, settings, and accepted/ with what a person accepted. The
server keeps the labels (`workspace`), answers strokes at once (`quick`) and follows in all images in the background
(`background`); the page itself is plain HTML, CSS and JavaScript in page/.
"""

from kshot.serve.server import serve

__all__ = ["serve"]
