"""What every refiner is: a module with frozen `Settings` and a function `refine`."""

from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from kshot.ops.geometry import Frame


class Refiner(Protocol):
    """The module of a refiner. One that needs a model loads it in a further function, `prepare(settings)`."""

    __name__: str
    Settings: type

    def refine(
        self,
        logits: Tensor,  # (N+1, gh, gw), 0 = background
        frame: Frame,
        image: NDArray[np.uint8],  # (h, w, 3)
        settings: Any,
    ) -> Tensor:
        """Logits (N+1, h, w)."""
        ...
