"""Refiners: from scores on the grid to scores at the image's own size.

A refiner is a module with frozen `Settings` and `refine(logits, frame, image, settings)`, which takes logits
(N+1, gh, gw), 0 = background, and the image (h, w, 3) uint8, and gives logits (N+1, h, w). One that needs more than
that, such as a model, checks it in `prepare(settings)`.
"""
