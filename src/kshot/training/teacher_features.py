"""What large encoders see in photographs, computed once and kept on the disk: the targets of distillation.

Cells of all layers and teachers stand side by side, so that their cosines are the mean of the parts' cosines, and are
turned onto their main directions: far fewer channels then hold nearly the same cosines. No mean is taken off first,
since kshot's methods compare plain cosines.
"""

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from kshot.backbones.base import Backbone
from kshot.errors import OutputError
from kshot.io.atomic import write_text
from kshot.io.images import read_image
from kshot.training.objects import object_of
from kshot.training.unlabelled import cut, mask_of, region, rng, to_pixels

_BASIS = 512  # photographs that the main directions are found on
_MADE, _DIRECTIONS = "targets.json", "directions.npy"
_SAVED = 50  # photographs after which it is written down that theirs are made
Step = Callable[[int, int], None]


@dataclass(frozen=True)
class Plan:
    """grid: cells a side that teachers see. views: of each photograph, the first of them whole. least: area of a view.

    dim: channels of a target. objects: whether to tell the object too, by a mask or as the region that stands out.
    """

    grid: int = 20
    views: int = 3
    least: float = 0.3
    dim: int = 192
    objects: bool = True
    seed: int = 0


class Targets(NamedTuple):
    """dense: (photos, views, grid * grid, dim). token: (photos, views, dim). objects: (photos, grid, grid) in 0..1.

    kept: share of the squared length of the teachers' cells that the main directions hold.
    """

    dense: NDArray[np.float16]
    token: NDArray[np.float16]
    objects: NDArray[np.float16]
    kept: float


def boxes(size_hw: tuple[int, int], plan: Plan, index: int, view: int) -> tuple[int, int, int, int]:
    """Where view number `view` of photograph number `index` lies in it."""
    if view == 0:
        return 0, 0, size_hw[1], size_hw[0]
    return region(size_hw, rng(plan.seed, index, view), plan.least)


def prepare(
    teachers: Sequence[Backbone],
    folder: Path,
    photos: Sequence[Path],
    plan: Plan,
    out: Path,
    *,
    masks: Path | None = None,
    step: Step | None = None,
) -> Targets:
    """Targets of all photographs: made, or read from `out` as far as they were made there before.

    Raises `OutputError`.
    """
    facts = {
        "teachers": [teacher.identity for teacher in teachers],
        "photos": [photo.relative_to(folder).as_posix() for photo in photos],
        "plan": asdict(plan),
        "masks": str(masks) if masks else None,
    }
    begun = _begun(out, facts)
    if begun.made == len(photos):
        return _opened(out, begun.kept, "r", len(photos), plan)
    see = _Seer(teachers, plan)
    if not begun.made:
        begun = _Begun(0, *_directions(see, photos, plan))
    targets = _opened(out, begun.kept, "r+" if begun.made else "w+", len(photos), plan)
    _keep(begun.basis, out / _DIRECTIONS)
    for index in range(begun.made, len(photos)):
        picture = read_image(photos[index])
        parts, tokens = see(picture, index, range(plan.views))  # (views, cells, all), (views, all)
        targets.dense[index] = (parts @ begun.basis).to(torch.float16).numpy()
        targets.token[index] = (tokens @ begun.basis).to(torch.float16).numpy()
        if plan.objects:
            first = parts[0].T.reshape(-1, plan.grid, plan.grid)
            targets.objects[index] = object_of(first, mask_of(photos[index], folder, masks)).to(torch.float16).numpy()
        if (index + 1) % _SAVED == 0 or index + 1 == len(photos):
            write_text(out / _MADE, json.dumps({"facts": facts, "kept": begun.kept, "made": index + 1}))
        if step:
            step(index + 1, len(photos))
    return targets


class _Begun(NamedTuple):
    """made: photographs whose targets are there. basis, kept: what `_directions` found; of no use where none are."""

    made: int
    basis: Tensor
    kept: float


def _begun(out: Path, facts: dict[str, Any]) -> _Begun:
    """What an earlier call with the same facts left in `out`; targets of other facts are given up."""
    told = out / _MADE
    found = json.loads(told.read_text()) if told.is_file() and (out / _DIRECTIONS).is_file() else {}
    if found.get("facts") == facts and "made" in found:
        return _Begun(found["made"], torch.from_numpy(np.load(out / _DIRECTIONS)), found["kept"])
    told.unlink(missing_ok=True)
    return _Begun(0, torch.empty(0), 0.0)


def _keep(basis: Tensor, path: Path) -> None:
    try:
        np.save(path, basis.numpy())
    except OSError as error:
        raise OutputError(f"{path}: cannot be written ({error.strerror or error})") from error


class _Seer:
    """Pictures to what all teachers see in their views."""

    def __init__(self, teachers: Sequence[Backbone], plan: Plan):
        self.teachers, self.plan = teachers, plan

    def __call__(self, picture: NDArray[np.uint8], index: int, views: Sequence[int]) -> tuple[Tensor, Tensor]:
        size_hw = (picture.shape[0], picture.shape[1])
        places = [boxes(size_hw, self.plan, index, view) for view in views]
        dense, tokens = [], []
        for teacher in self.teachers:
            spec = teacher.spec
            views_of = [cut(picture, place, self.plan.grid * spec.patch) for place in places]
            seen = teacher.encode(to_pixels(views_of, spec.mean_rgb, spec.std_rgb))
            cells = F.normalize(seen.dense.float().cpu(), dim=1).flatten(2).transpose(1, 2)  # (views, cells, c)
            token = cells.mean(1) if seen.token is None else seen.token.float().cpu()
            dense.append(cells)
            tokens.append(F.normalize(token, dim=1))
        shrink = len(self.teachers) ** -0.5
        return torch.cat(dense, 2) * shrink, torch.cat(tokens, 1) * shrink


def _directions(see: _Seer, photos: Sequence[Path], plan: Plan) -> tuple[Tensor, float]:
    """(all, dim) orthonormal main directions of the teachers' cells, and the share of their squares that they hold."""
    total = torch.zeros(())
    for index, photo in enumerate(photos[:_BASIS]):
        cells = see(read_image(photo), index, [0])[0][0]
        total = total + cells.T @ cells
    values, vectors = torch.linalg.eigh(total.double())
    kept = values.flip(0)[: plan.dim].sum() / values.sum()
    return vectors.flip(1)[:, : plan.dim].float().contiguous(), float(kept)


def _opened(out: Path, kept: float, mode: Literal["r", "r+", "w+"], count: int, plan: Plan) -> Targets:
    cells = plan.grid * plan.grid
    shapes = {
        "dense": (count, plan.views, cells, plan.dim),
        "token": (count, plan.views, plan.dim),
        "objects": (count, plan.grid, plan.grid),
    }
    try:
        out.mkdir(parents=True, exist_ok=True)
        arrays = {
            name: _created(out / f"{name}.npy", shape) if mode == "w+" else np.load(out / f"{name}.npy", mmap_mode=mode)
            for name, shape in shapes.items()
        }
    except OSError as error:
        need = 2 * sum(int(np.prod(shape)) for shape in shapes.values()) / 2**30
        raise OutputError(f"{out}: the targets need {need:.1f} GiB there ({error.strerror or error})") from error
    return Targets(kept=kept, **arrays)


def _created(path: Path, shape: tuple[int, ...]) -> NDArray[np.float16]:
    array: NDArray[np.float16] = np.lib.format.open_memmap(path, mode="w+", dtype=np.float16, shape=shape)
    if hasattr(os, "posix_fallocate"):  # a disk that is too full says so now: a mapped page could only kill the process
        with path.open("r+b") as file:
            os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
    return array
