"""Training: heads without labels, methods on episodes of base classes, and small encoders from large ones."""
