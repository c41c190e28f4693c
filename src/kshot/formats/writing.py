"""Write files so that a killed run leaves the old one or the new one, never half of one."""

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from kshot import _plugins
from kshot.errors import OutputError, SettingError
from kshot.types import Prediction


@contextlib.contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """A path beside `path` to write to; renamed to it when the block ends well, removed when it does not.

    Missing parent folders are made. Raises `OutputError` that names the path when the disk refuses.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # A short name of its own: the target's may already be as long as the file system allows.
        handle, name = tempfile.mkstemp(prefix=".kshot-", suffix=path.suffix, dir=path.parent)
        os.close(handle)
    except OSError as error:
        raise OutputError(f"{path}: cannot be written ({error.strerror or error}); choose another folder") from error
    beside = Path(name)
    try:
        yield beside
        beside.chmod(0o666 & ~_umask())
        beside.replace(path)
    except OSError as error:
        raise OutputError(f"{path}: cannot be written ({error.strerror or error})") from error
    finally:
        beside.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text atomically."""
    with atomic_path(path) as beside:
        beside.write_text(text, encoding="utf-8")


def save(prediction: Prediction, path: Path) -> Path:
    """Write one prediction in the format whose `WRITES` holds the path's suffix; returns the path."""
    writers = {s: m for m in _plugins.members("formats").values() for s in getattr(m, "WRITES", ())}
    if path.suffix.lower() not in writers:
        raise SettingError(
            f"{path}: no format writes {path.suffix or 'a name without suffix'}; use {', '.join(writers)}"
        )
    writers[path.suffix.lower()].write(prediction, path)
    return path


def _umask() -> int:
    # There is no way to read the umask but to set it; mkstemp's 0600 would keep results from the user's group.
    mask = os.umask(0)
    os.umask(mask)
    return mask
