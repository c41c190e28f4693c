"""What a run left."""

from pathlib import Path


def contents(folder: Path, *, by_shards: bool = False) -> dict[str, bytes]:
    """The bytes of a run's files by path, without what tells runs apart: times, and of shards locks and manifests."""
    files = {str(path.relative_to(folder)): path for path in folder.rglob("*") if path.is_file()}
    side = ("timing", ".lock", "manifest-") if by_shards else ("timing",)
    return {name: path.read_bytes() for name, path in files.items() if not name.startswith(side)}
