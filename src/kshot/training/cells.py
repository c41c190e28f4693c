"""What a frozen backbone and its teacher see in photographs: computed once, when asked for, and kept on the disk."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from filelock import FileLock
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from kshot.backbones.base import Backbone, Encoding
from kshot.backbones.headed import HeadBackbone, head_backbone
from kshot.backbones.hub import HubBackbone
from kshot.errors import OutputError
from kshot.io.atomic import write_text
from kshot.io.images import read_image
from kshot.training.objects import object_of
from kshot.training.unlabelled import cut, mask_of, to_pixels


@dataclass(frozen=True)
class View:
    """size: pixels a side; a photograph is seen whole, so its aspect ratio gives way. masks: folder of objects."""

    size: int = 448
    masks: str = ""


class Cells(NamedTuple):
    """inner: (width, grid, grid). values: (c, grid, grid) of the teacher. objects: (grid, grid) in 0..1."""

    inner: Tensor
    values: Tensor
    objects: Tensor


class Seen:
    """Photographs to `Cells`. Several processes may share one folder: they would write the same numbers.

    teacher: whose cells say what belongs together; None for the backbone itself, at the values of its last attention.
    """

    def __init__(
        self, backbone: Backbone, teacher: Backbone | None, folder: Path, photos: Sequence[Path], view: View, out: Path
    ):
        self.carrier: HeadBackbone = head_backbone(_at_values(backbone) if teacher is None else backbone)
        self.teacher = None if teacher is None else _at_values(teacher)
        self.folder, self.photos, self.view = folder, photos, view
        self.grid = view.size // backbone.spec.patch
        self.facts = {
            "weights": backbone.identity,
            "teacher": self.teacher.identity if self.teacher else "",
            "photos": _digest([photo.relative_to(folder).as_posix() for photo in photos]),
            "count": len(photos),
            "view": asdict(view),
        }
        self.kept = _opened(out, self.facts, self._shapes())

    def __call__(self, index: int) -> Cells:
        """Cells of a photograph by its number."""
        if not self.kept["known"][index]:
            for name, plane in zip(Cells._fields, self._look(index), strict=True):
                self.kept[name][index] = plane.cpu().to(torch.float16).numpy()
            self.kept["known"][index] = 1  # last: what a kill leaves half written is made again
        inner, values, objects = (torch.from_numpy(self.kept[n][index].astype(np.float32)) for n in Cells._fields)
        return Cells(inner, values, objects)

    def _shapes(self) -> dict[str, tuple[int, ...]]:
        count, grid, patch = len(self.photos), self.grid, (self.teacher or self.carrier).spec.patch
        probe = torch.zeros(1, 3, 4 * patch, 4 * patch)
        dense = self.carrier.encode_inner(probe)[0] if self.teacher is None else self.teacher.encode(probe).dense
        return {
            "inner": (count, self.carrier.width, grid, grid),
            "values": (count, dense.shape[1], grid, grid),
            "objects": (count, grid, grid),
            "known": (count,),
        }

    def _look(self, index: int) -> Cells:
        picture = read_image(self.photos[index])
        dense, token, inner = self.carrier.encode_inner(self._pixels(picture, self.carrier.spec.patch, self.carrier))
        told = Encoding(dense, token)
        if self.teacher is not None:
            told = self.teacher.encode(self._pixels(picture, self.teacher.spec.patch, self.teacher))
        values = F.normalize(told.dense[0].float().cpu(), dim=0)
        return Cells(inner[0], values, self._objects(index, values, told.objectness))

    def _pixels(self, picture: NDArray[np.uint8], patch: int, seer: HeadBackbone | Backbone) -> Tensor:
        """The photograph in as many cells a side for any patch."""
        whole = (0, 0, picture.shape[1], picture.shape[0])
        view = cut(picture, whole, self.grid * patch)
        return to_pixels([view], seer.spec.mean_rgb, seer.spec.std_rgb)

    def _objects(self, index: int, values: Tensor, objectness: Tensor | None) -> Tensor:
        """A given mask, or the region that stands out among the teacher's cells."""
        mask = mask_of(self.photos[index], self.folder, Path(self.view.masks) if self.view.masks else None)
        return object_of(values, mask, None if objectness is None else objectness[0].float().cpu())


def _digest(names: Sequence[str]) -> str:
    return hashlib.sha256("\n".join(names).encode("utf-8", "surrogateescape")).hexdigest()


def _at_values(backbone: Backbone) -> Backbone:
    """A transformer read at the values of its last attention; CLIP's cells are its values already (MaskCLIP)."""
    return backbone.values() if isinstance(backbone, HubBackbone) else backbone


def _opened(out: Path, facts: dict[str, object], shapes: dict[str, tuple[int, ...]]) -> dict[str, NDArray[np.generic]]:
    """Arrays on the disk by name; emptied when they were of something else."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        with FileLock(out / "cells.lock"):  # of several processes one makes them, the others find them
            done = out / "cells.json"
            if not done.is_file() or json.loads(done.read_text()) != facts:
                for name, shape in shapes.items():
                    kind = np.uint8 if name == "known" else np.float16
                    np.lib.format.open_memmap(out / f"{name}.npy", mode="w+", dtype=kind, shape=shape)
                write_text(done, json.dumps(facts))
        return {name: np.load(out / f"{name}.npy", mmap_mode="r+") for name in shapes}
    except OSError as error:
        need = 2 * sum(int(np.prod(shape)) for shape in shapes.values()) / 2**30
        raise OutputError(f"{out}: the cells need {need:.1f} GiB there ({error.strerror or error})") from error
