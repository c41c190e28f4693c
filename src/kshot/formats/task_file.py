"""Task files: safetensors with a JSON header, checked against a digest when read. No pickle anywhere."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from kshot.errors import TaskFileError, TaskVersionError
from kshot.formats.writing import atomic_path

LAYOUT = 1


def write_task(path: Path, header: Mapping[str, Any], tensors: dict[str, Tensor]) -> None:
    """Write header and tensors atomically; raises `OutputError`."""
    full = {"layout": LAYOUT, "digest": digest(tensors), **header}
    with atomic_path(path) as beside:
        save_file(tensors, beside, metadata={"kshot": json.dumps(full)})


def read_task(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Header and tensors. Raises `TaskFileError` (missing, no task, damaged) and `TaskVersionError`."""
    try:
        with safe_open(path, framework="pt") as file:
            header: dict[str, Any] = json.loads((file.metadata() or {})["kshot"])
            # Cloned to where torch puts tensors: sums over memory that is not aligned may end in other bits.
            tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118 - it is no dict
    except FileNotFoundError as error:
        raise TaskFileError(f"{path}: no such file; `kshot fit SUPPORT -o {path}` makes one") from error
    except (SafetensorError, KeyError, ValueError, OSError) as error:
        raise TaskFileError(f"{path}: not a kshot task, or damaged ({error}); fit it again") from error
    if header.get("layout") != LAYOUT:
        raise TaskVersionError(
            f"{path}: a task file of layout {header.get('layout')}, this kshot reads layout {LAYOUT}; "
            "fit again from the supports, or use the version that wrote it"
        )
    if digest(tensors) != header.get("digest"):
        raise TaskFileError(f"{path}: damaged (its contents do not match its checksum); copy or fit it again")
    return header, tensors


def digest(tensors: Mapping[str, Tensor]) -> str:
    """sha256 over names and bytes."""
    total = hashlib.sha256()
    for name in sorted(tensors):
        total.update(name.encode())
        total.update(tensors[name].contiguous().numpy().data)
    return total.hexdigest()
