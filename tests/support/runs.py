"""What a run left."""

from pathlib import Path


def contents(folder: Path) -> dict[str, bytes]:
    files = {str(path.relative_to(folder)): path for path in folder.rglob("*") if path.is_file()}
    side = ("timing", ".lock", "manifest-")
    return {name: path.read_bytes() for name, path in files.items() if not name.startswith(side)}
