"""An encoder small enough for tests."""

from kshot.backbones.tiny import NetSizes

SMALL = NetSizes(dim=12, quarter=4, eighth=6, sixteenth=16, residuals=(1, 1, 1), blocks=1, heads=2)
