"""What every measurement says of where it was taken, and where the development data lies."""

import platform
from pathlib import Path
from typing import Any

import numpy as np
import torch

import kshot


def shared(path: str) -> Path:
    """A path in the folder of development data beside the checkout."""
    return Path(__file__).resolve().parents[2] / "shared" / path


def facts() -> dict[str, Any]:
    """Versions and the kind of machine."""
    return {
        "kshot": kshot.__version__,
        "torch": torch.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
        "machine": platform.machine(),
        "threads": torch.get_num_threads(),
    }
