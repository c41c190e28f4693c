"""Tensors on disk: safetensors with a JSON header, of tasks and of what training leaves. No pickle anywhere."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from kshot.errors import BackboneMismatchError, OutputError, SettingError, TaskFileError, TaskVersionError
from kshot.io.atomic import atomic_path

LAYOUT = 2
_CHECKSUM = "checksum"
_UNREADABLE = (SafetensorError, KeyError, ValueError, TypeError, OSError, RecursionError)


def write_task(path: Path, header: Mapping[str, Any], tensors: dict[str, Tensor]) -> None:
    """Write header and tensors atomically. Raises `OutputError`, also where a file of another kind is."""
    check_place(path)
    facts = json.loads(json.dumps({"layout": LAYOUT, **header}))
    with atomic_path(path) as beside:
        # One key alone: safetensors writes several in an order that differs from file to file.
        save_file(tensors, beside, {"kshot": json.dumps(facts | {_CHECKSUM: _checksum(facts, tensors)})})


def check_place(path: Path) -> None:
    """Refuse to replace a file that is no task file; one that is called .kshot may be damaged. Raises `OutputError`."""
    if path.is_file() and path.stat().st_size and path.suffix.lower() != ".kshot":
        with path.open("rb") as file:
            head = file.read(64)
        if not head[8:].startswith(b'{"__metadata__":{"kshot":'):
            raise OutputError(f"{path}: a file that is no task file, which is not replaced; choose another name")


def read_task(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Header and tensors. Raises `TaskFileError` (missing, no task, damaged) and `TaskVersionError`."""
    try:
        metadata, tensors = _read(path)
        header = _object(metadata["kshot"])
    except FileNotFoundError as error:
        raise TaskFileError(f"{path}: no such file; `kshot fit SUPPORT -o {path}` makes one") from error
    except _UNREADABLE as error:
        raise TaskFileError(f"{path}: not a kshot task, or damaged ({error}); fit it again") from error
    if header.get("layout") != LAYOUT:
        raise TaskVersionError(
            f"{path}: a task file of layout {header.get('layout')}, this kshot reads layout {LAYOUT}; "
            "fit again from the supports, or use the version that wrote it"
        )
    if header.pop(_CHECKSUM, None) != _checksum(header, tensors):
        raise TaskFileError(f"{path}: damaged (its contents do not match its checksum); copy or fit it again")
    return header, tensors


def digest(tensors: Mapping[str, Tensor]) -> str:
    """sha256 over names and bytes."""
    total = hashlib.sha256()
    for name in sorted(tensors):
        total.update(name.encode())
        total.update(tensors[name].contiguous().numpy().data)
    return total.hexdigest()


FILE = "head.safetensors"
_LEARNED_FACTS = "kshot-learned"


@dataclass(frozen=True, eq=False)
class Learned:
    """What a training run leaves for a method."""

    facts: Mapping[str, Any]
    """At least the method, the backbone, and the identity of its features."""
    tensors: Mapping[str, Tensor] = field(repr=False)
    """By name; never changed after reading, so threads and tasks share them."""

    @property
    def digest(self) -> str:
        """sha256 over facts and tensors."""
        return _digest_of_all(self.facts, self.tensors)

    def tensor(self, name: str) -> Tensor:
        """One of the tensors; raises `SettingError` where it is not among them."""
        if name not in self.tensors:
            raise SettingError(
                f"these weights of {self.facts['method']} lack {name!r} and hold {', '.join(self.tensors) or 'none'}; "
                "copy or train them again"
            )
        return self.tensors[name]

    def check_for(self, method: str, identity: str, backbone: str) -> None:
        """Raise `SettingError` for another method's tensors, `BackboneMismatchError` for another backbone's."""
        if self.facts["method"] != method:
            raise SettingError(
                f"these weights were learned for the method {self.facts['method']}, not for {method}; use "
                f"that one (--method {self.facts['method']}), or train others"
            )
        if self.facts["identity"] != identity:
            raise BackboneMismatchError(
                f"these weights were learned on features of {self.facts['backbone']} "
                f"({self.facts['identity'][:12]}), the features here come from {backbone} ({identity[:12]}); use the "
                "same backbone and layers, or train anew on this one"
            )


def write_learned(path: Path, learned: Learned) -> None:
    """Write atomically; raises `OutputError`."""
    tensors = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in learned.tensors.items()}
    with atomic_path(path) as beside:
        facts = json.loads(json.dumps(dict(learned.facts)))
        save_file(tensors, beside, {_LEARNED_FACTS: json.dumps(facts | {_CHECKSUM: _checksum(facts, tensors)})})


def read_learned(place: str | Path) -> Learned:
    """Read a file, or the folder of a training run. Raises `SettingError`; an unchanged file is read only once."""
    path = Path(place).expanduser()
    path = path / FILE if path.is_dir() else path
    try:
        stamp = path.stat()
    except OSError as error:
        raise SettingError(
            f"{path}: no weights here; `kshot train` episodic or background writes RUN/{FILE}"
        ) from error
    return _read_learned(path, stamp.st_mtime_ns, stamp.st_size)


@lru_cache(maxsize=8)
def _read_learned(path: Path, changed: int, size: int) -> Learned:
    try:
        metadata, tensors = _read(path)
        facts = _object(metadata[_LEARNED_FACTS])
        wrong = [key for key in ("method", "identity", "backbone") if not isinstance(facts.get(key), str)]
        if wrong:
            raise KeyError(f"its facts lack {', '.join(wrong)}")
        if facts.pop(_CHECKSUM) != _checksum(facts, tensors):
            raise ValueError("its contents do not match its checksum")
    except _UNREADABLE as error:
        raise SettingError(f"{path}: no weights of a method ({error}); give RUN/{FILE} of a training run") from error
    return Learned(facts, tensors)


def _digest_of_all(facts: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> str:
    told = json.dumps(dict(facts), sort_keys=True)
    return hashlib.sha256((told + digest(tensors)).encode()).hexdigest()


def _checksum(facts: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> str:
    """sha256 over facts and tensors, and over the tensors' types and shapes, which their bytes do not tell."""
    kinds = [f"{name} {tensor.dtype} {tuple(tensor.shape)}" for name, tensor in sorted(tensors.items())]
    return hashlib.sha256("\n".join([_digest_of_all(facts, tensors), *kinds]).encode()).hexdigest()


def _read(path: Path) -> tuple[dict[str, str], dict[str, Tensor]]:
    """The texts of the header, and all tensors."""
    with safe_open(path, framework="pt") as file:
        # Cloned to where torch puts tensors: sums over memory that is not aligned may end in other bits.
        return file.metadata() or {}, {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118


def _object(text: str) -> dict[str, Any]:
    value = json.loads(text)
    if not isinstance(value, dict):
        raise ValueError("its header holds no object")
    return value
