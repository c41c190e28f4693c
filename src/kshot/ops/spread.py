"""Some of many, of all kinds: from an order, evenly."""

from collections.abc import Sequence
from typing import TypeVar

Item = TypeVar("Item")


def evenly_spread(ordered: Sequence[Item], most: int) -> tuple[Item, ...]:
    """At most so many of some items in an order, evenly from the first to the last."""
    count = min(most, len(ordered))
    return tuple(ordered[int((place + 0.5) * len(ordered) / count)] for place in range(count))
