"""Features on disk, found by their contents: the same image, backbone and size never pass the encoder twice.

A key is the hash of the image file's bytes, the backbone's identity, the working size, and the inference engine with
its precision; so runs share a cache, and a changed image or model never gets stale features. A file says its key, and a
checksum over the key and its tensors' names, types, shapes and bytes; where any of it does not fit, the features are
computed again.
"""

import contextlib
import hashlib
import logging
import os
import time
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from kshot.backbones.base import Backbone
from kshot.errors import OutputError
from kshot.features.engines import precision_of
from kshot.io.atomic import atomic_path
from kshot.ops.geometry import FeatureMap, Frame

log = logging.getLogger(__name__)
MAX_BYTES = 20 * 2**30
_ABANDONED_SECONDS = 3600
_KEY, _CHECKSUM = "kshot-key", "kshot-checksum"
_warned: set[Path | None] = set()


class FeatureCache:
    """A folder of features, bounded in size: the least recently used go first.

    folder: created with the first features; None keeps nothing. max_bytes: of the files together.
    `hits` and `misses` count. A disk that is full or read-only ends the caching and not the run: `writable` turns
    False, with one warning a process and folder.
    """

    def __init__(self, folder: Path | None, max_bytes: int = MAX_BYTES):
        self.folder, self.max_bytes = folder, max_bytes
        self.hits = self.misses = 0
        # As if a part had been written already: the first write prunes what earlier runs left.
        self._written = max_bytes
        self.writable = folder is not None

    def get(self, data: bytes, backbone: Backbone, size: int, make: Callable[[], FeatureMap]) -> FeatureMap:
        """Features from the folder, or from `make` when they are not there.

        data: the bytes of an image file, followed by what was done to the image, if anything.
        """
        path = self.path(data, backbone, size)
        found = self._read(path, backbone) if path else None
        if found is not None:
            self.hits += 1
            return found
        self.misses += 1
        made = make()
        if path:
            self._write(path, made)
        return made

    def path(self, data: bytes, backbone: Backbone, size: int) -> Path | None:
        """Where the features of an image with these bytes lie, or will lie; None without a folder."""
        if self.folder is None:
            return None
        key = hashlib.sha256(data + f"{backbone.identity} {size} {precision_of(backbone)}".encode()).hexdigest()
        return self.folder / key[:2] / f"{key}.safetensors"

    def _read(self, path: Path, backbone: Backbone) -> FeatureMap | None:
        try:
            with safe_open(path, framework="pt") as file:
                facts = file.metadata() or {}
                # A clone is aligned as torch aligns tensors: sums over memory that is not may differ in the last bits.
                tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118 - it is no dict
            if _CHECKSUM not in facts and tensors.keys() >= {"features", "frame"}:
                log.info("%s: of an older kshot, without a checksum, so the features are computed again", path)
                return None
            if (facts.get(_KEY), facts.get(_CHECKSUM)) != (path.stem, _checksum(path.stem, tensors)):
                raise ValueError("its contents do not match its key and checksum")
            height, width, inner_height, inner_width = tensors["frame"].tolist()
            frame = Frame((height, width), (inner_height, inner_width), backbone.spec.patch)
            found = FeatureMap(
                tensors["features"], frame, backbone.identity, tensors.get("token"), tensors.get("objectness")
            )
        except FileNotFoundError:
            return None
        except (SafetensorError, OSError, KeyError, ValueError, TypeError) as error:
            log.warning("%s: damaged, so the features are computed again (%s)", path, error)
            return None
        # Another user's cache can be read but not touched.
        with contextlib.suppress(OSError):
            os.utime(path)
        return found

    def _write(self, path: Path, features: FeatureMap) -> None:
        if not self.writable:
            return
        frame = torch.tensor([*features.frame.size_hw, *features.frame.inner_hw])
        tensors = {"features": features.features.contiguous(), "frame": frame}
        extra = {"token": features.token, "objectness": features.objectness}
        tensors |= {name: tensor.contiguous() for name, tensor in extra.items() if tensor is not None}
        try:
            with atomic_path(path) as beside:
                save_file(tensors, beside, {_KEY: path.stem, _CHECKSUM: _checksum(path.stem, tensors)})
        except (OutputError, SafetensorError) as error:
            self.writable = False
            if self.folder not in _warned:
                log.warning("features are not cached from here on: %s", error)
            _warned.add(self.folder)
            return
        self._written += path.stat().st_size
        if self._written > self.max_bytes // 16:
            self.prune()

    def prune(self) -> None:
        """Remove the least recently used files until three quarters of the bound are left."""
        self._written = 0
        if self.folder is None:
            return
        # A killed process leaves a half-written file behind; after an hour nobody writes it any more.
        for path in self.folder.glob("*/.kshot-*"):
            if time.time() - _used(path)[0] > _ABANDONED_SECONDS:
                path.unlink(missing_ok=True)
        files = sorted((_used(path), path) for path in self.folder.glob("*/*.safetensors"))
        total = sum(size for (_, size), _ in files)
        if total <= self.max_bytes:
            return
        for (_, size), path in files:
            path.unlink(missing_ok=True)
            total -= size
            if total <= 0.75 * self.max_bytes:
                return


def _checksum(key: str, tensors: Mapping[str, Tensor]) -> str:
    """CRC-32 over the key and all that the tensors are. It finds damage, which is all that is asked of it."""
    total = zlib.crc32(key.encode())
    for name, tensor in sorted(tensors.items()):
        total = zlib.crc32(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode(), total)
        total = zlib.crc32(tensor.numpy().data, total)
    return f"{total:08x}"


def _used(path: Path) -> tuple[float, int]:
    try:
        facts = path.stat()
    except FileNotFoundError:  # another process pruned it
        return 0.0, 0
    return facts.st_mtime, facts.st_size
