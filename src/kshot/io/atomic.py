"""Write files so that a killed run leaves the old one or the new one, never half of one."""

import contextlib
import filecmp
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path

from kshot.errors import OutputError

_ABANDONED = re.compile(r"\.kshot-[0-9a-f]+(\.[^.]*)?")


@contextlib.contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """A path beside `path` to write to; renamed to it when the block ends well, removed when it does not.

    Missing parent folders are made. Raises `OutputError` that names the path when the disk refuses.
    """
    # A short name of its own: the target's may already be as long as the file system allows.
    beside = path.parent / f".kshot-{secrets.token_hex(8)}{path.suffix}"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # Not tempfile, whose 0600 would keep results from the user's group; the umask applies to this mode.
        os.close(os.open(beside, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
    except OSError as error:
        raise OutputError(f"{path}: cannot be written ({error.strerror or error}); choose another folder") from error
    try:
        yield beside
        if flushing():
            _flush(beside)
        beside.replace(path)
        if flushing():
            _flush(path.parent)
    except OutputError:
        raise
    except OSError as error:
        raise OutputError(f"{path}: cannot be written ({error.strerror or error})") from error
    finally:
        beside.unlink(missing_ok=True)


def flushing() -> bool:
    """Whether each file is flushed to the disk before it is renamed: the environment variable KSHOT_FLUSH.

    Without it a killed process leaves whole files, but a power cut may leave empty ones or ones that are cut off;
    `--resume` makes those again.
    """
    return os.environ.get("KSHOT_FLUSH", "") not in {"", "0"}


def _flush(path: Path) -> None:
    """Have the system write a file, or the names of a folder, to the disk."""
    if path.is_symlink() or (os.name == "nt" and path.is_dir()):  # Windows opens no folders
        return
    file = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(file)
    finally:
        os.close(file)


def is_abandoned(path: Path) -> bool:
    """Whether a file is half of one that a killed run left."""
    return _ABANDONED.fullmatch(path.name) is not None and path.is_file()


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text atomically; what no UTF-8 can hold, parts of names of files, is escaped."""
    with atomic_path(path) as beside:
        beside.write_text(text, encoding="utf-8", errors="backslashreplace")


def place_image(source: Path, target: Path, *, copy: bool = False) -> None:
    """A link to an image, or a copy where it is wanted or links are not to be had. Raises `OutputError`.

    What is there already is left when it is the image itself or a copy of it; another file is not replaced.
    """
    if target.exists() and not target.is_symlink():
        if target.samefile(source) or filecmp.cmp(target, source, shallow=False):
            return
        raise OutputError(f"{target}: another file than {source} is in its place; choose another folder")
    with atomic_path(target) as beside:
        if not copy:
            with contextlib.suppress(OSError, NotImplementedError):
                beside.unlink()
                beside.symlink_to(source.resolve())
                return
        shutil.copyfile(source, beside)
