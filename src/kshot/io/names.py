"""Which names are safe to write to, and which some format or report could not hold."""

import os
import re
from pathlib import Path, PurePosixPath

from kshot.errors import OutputError

_DRIVE = re.compile("^[A-Za-z]:")
# Control characters, what else ends a line, and what bytes that are no UTF-8 become.
_ODD = "[\\x00-\\x1f\\x7f-\\x9f\\u2028\\u2029\\ud800-\\udfff]"


def safe(name: str) -> str:
    """A path below a folder from any name: without "..", drive and odd characters; either slash parts folders."""
    parts = re.split(r"[/\\]", _DRIVE.sub("", name))
    parts = [re.sub(_ODD, "_", part) for part in parts if part not in {"", ".", ".."}]
    return "/".join(parts) or "unnamed"


def leads_out(name: str) -> bool:
    """Whether a name is no path below the folder that it is relative to, on whichever system."""
    path = PurePosixPath(name)
    outside = path.is_absolute() or ".." in path.parts or not path.parts or "\0" in name
    return outside or (os.name == "nt" and (".." in Path(name).parts or bool(Path(name).anchor)))


def below(root: Path, path: Path) -> Path:
    """The path, for writing to it. Raises `OutputError` when it is not below `root`, or a link on its way leads out."""
    try:
        outside = leads_out(path.relative_to(root).as_posix())
        outside = outside or not path.parent.resolve().is_relative_to(root.resolve())
    except (ValueError, OSError, RuntimeError):
        outside = True
    if outside:
        raise OutputError(f"{printable(str(path))}: leads out of {root}, below which results are written; rename it")
    return path


def odd_characters(name: str) -> str:
    """Why some format or report could not hold a name, in a word; empty where all can."""
    found = re.search(_ODD, name)
    if found:
        return "bytes that are no UTF-8" if "\ud800" <= found[0] <= "\udfff" else f"the character {found[0]!r}"
    return "a backslash" if "\\" in name else ""


def printable(name: str) -> str:
    """A name with its odd characters and backslashes escaped, as no other name is."""
    return re.sub(rf"{_ODD}|\\", lambda match: match[0].encode("unicode_escape").decode(), name)
