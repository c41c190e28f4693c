"""`kshot demo`."""


def demo() -> None:
    """Demo."""
