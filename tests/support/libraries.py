"""Which documented commands need a library that is not here: they run where it is installed."""

from importlib.util import find_spec

_NEEDED = {".zarr": "zarr", "geopackage": "pyogrio"}


def missing(command: str) -> bool:
    """Whether a command speaks of something whose library is not installed."""
    return any(word in command and find_spec(library) is None for word, library in _NEEDED.items())
