"""What a training may replace in its folder: the files of an earlier training, and others only when told so."""

import json
from collections.abc import Sequence
from pathlib import Path

from kshot.errors import SettingError
from kshot.io.tensor_file import FILE, read_learned
from kshot.training.checkpoint import BEST, LAST
from kshot.training.log import LOG, SETTINGS
from kshot.training.teacher_features import is_store

OF_A_RUN = (SETTINGS, LOG, LAST, BEST, "report.html")
"""What every training with steps writes, and its report."""


def check_output(out: Path, names: Sequence[str], *, stores: Sequence[str] = (), overwrite: bool = False) -> None:
    """Refuse a folder where files would be replaced that no training made. Raises `SettingError`.

    names: files and folders below `out` that will be written. stores: folders of features below it, which a training
    that was killed early leaves alone. overwrite: replace them all the same.
    """
    there = [name for name in names if _holds_files(out / name)]
    there += [name for name in stores if _holds_files(out / name) and not is_store(out / name)]
    if there and not overwrite and not _is_of_training(out):
        raise SettingError(
            f"{out}: holds {', '.join(there)}, which no training of kshot made; choose another folder, or replace what "
            "has the same name (overwrite, --overwrite)"
        )


def _holds_files(path: Path) -> bool:
    return path.is_file() or (path.is_dir() and any(not each.is_dir() for each in path.rglob("*")))


def _is_of_training(out: Path) -> bool:
    try:
        settings = json.loads((out / SETTINGS).read_text(encoding="utf-8"))
        if isinstance(settings, dict) and "schedule" in settings:
            return True
    except (OSError, ValueError, RecursionError):
        pass
    try:
        read_learned(out / FILE)
    except SettingError:
        return False
    return True
