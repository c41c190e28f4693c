"""Score maps for further computing: an npz with the score of every class at every pixel, in 16 bits."""

import zipfile
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from kshot.errors import InputError
from kshot.formats.base import ImageWriter
from kshot.io.atomic import atomic_path
from kshot.types import Prediction

_FULL = 65535


class Scores(ImageWriter):
    """An npz per image."""

    folder = "scores"
    suffixes = (".npz",)

    def write(self, prediction: Prediction, path: Path) -> None:
        """Write an npz of `scores`, (N+1, h, w) uint16 = round(65535 * score), `classes` and `present`, (N,) each.

        A score comes back within 1/131070, so the scores of a pixel sum to 1 within (N+1)/131070. The same prediction
        gives the same bytes. Raises `OutputError`.
        """
        scores = np.rint(np.clip(prediction.scores, 0, 1) * np.float32(_FULL)).astype(np.uint16)
        present = np.array([prediction.present[name] for name in prediction.classes], np.float64)
        with atomic_path(path) as beside, beside.open("wb") as file:
            np.savez_compressed(file, scores=scores, classes=np.array(prediction.classes, np.str_), present=present)


def read(path: Path) -> tuple[NDArray[np.float32], tuple[str, ...], dict[str, float]]:
    """Read (scores, classes, present): (N+1, h, w) float32 in 0..1, the class names, {class: probability}.

    Raises `InputError` that names the path when it is missing, damaged or no score map.
    """
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as saved:
            scores, names, present = saved["scores"], saved["classes"], saved["present"]
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file; check the path") from error
    except (
        OSError,
        ValueError,
        KeyError,
        EOFError,
        TypeError,
        NotImplementedError,
        zipfile.BadZipFile,
        zlib.error,
    ) as error:
        raise InputError(f"{path}: not a score map written by kshot, or damaged ({error})") from error
    if scores.dtype != np.uint16 or scores.ndim != 3 or not (len(scores) - 1,) == names.shape == present.shape:
        raise InputError(
            f"{path}: expected uint16 scores (N+1, h, w), N classes and presences, "
            f"got {scores.dtype} {scores.shape}, {names.shape} and {present.shape}"
        )
    classes = tuple(names.tolist())
    restored = scores.astype(np.float32) / np.float32(_FULL)
    return restored, classes, dict(zip(classes, present.tolist(), strict=True))


FORMAT = Scores()
