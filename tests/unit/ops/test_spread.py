"""Evenly from the first to the last."""

from kshot.ops.spread import evenly_spread


def test_counted_by_hand() -> None:
    assert evenly_spread(range(10), 5) == (1, 3, 5, 7, 9)
    assert evenly_spread("abcde", 2) == ("b", "d")
    assert evenly_spread((1, 2), 5) == (1, 2) and evenly_spread([], 5) == ()
