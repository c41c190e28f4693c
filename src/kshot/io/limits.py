"""How much a file may ask for before it is refused, so that a small file never costs much to read.

Each limit is an environment variable, which the message that refuses a file names.
"""

import os
from dataclasses import dataclass

from kshot.errors import SettingError


@dataclass(frozen=True)
class Limit:
    """A whole number that an environment variable may change."""

    variable: str
    default: int

    @property
    def value(self) -> int:
        """The number that holds now. Raises `SettingError` when the variable is no whole number of at least 1."""
        text = os.environ.get(self.variable, "").strip()
        if not text:
            return self.default
        if not (text.isascii() and text.isdigit() and int(text[:19]) > 0):
            raise SettingError(f"{self.variable}={text}: expected a whole number of at least 1")
        return int(text[:19])


PIXELS = Limit("KSHOT_MAX_PIXELS", 200_000_000)
"""Pixels of an image or a mask that is read whole."""
LABEL_PIXELS = Limit("KSHOT_MAX_LABEL_PIXELS", 500_000_000)
"""Pixels of an image that labels are of, whether it is there or not; 20,000 x 20,000 are 400 million."""
PIXELS_PER_BYTE = Limit("KSHOT_MAX_PIXELS_PER_BYTE", 10_000)
"""Pixels for each byte of the file of a large image; deflate, the densest common packing, holds 8,300 at most."""
OUTLINE = Limit("KSHOT_MAX_OUTLINE", 10_000_000)
"""Length of a polygon's outline in pixels, along the longer axis of each edge; filling it takes 80 bytes for each."""
