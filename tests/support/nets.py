"""An encoder small enough for tests."""

from kshot.backbones.tiny import NetSizes

SMALL = NetSizes(dim=12, width=16, blocks=2, heads=2, grid=3, layers=(1, 2))
