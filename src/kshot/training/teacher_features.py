"""What frozen backbones compute of photographs: once, and kept on disk."""

import hashlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from filelock import FileLock
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from kshot.backbones.base import Backbone, Encoding
from kshot.backbones.headed import HeadBackbone, head_backbone
from kshot.backbones.hub import HubBackbone
from kshot.errors import OutputError
from kshot.io.atomic import atomic_path, write_text
from kshot.io.images import read_image
from kshot.training.schedule import Progress
from kshot.training.unlabelled import (
    RGB,
    crop_resize,
    mask_of,
    objectness_target,
    random_resized_crop_box,
    seeded_rng,
    to_pixels,
)

_BASIS_PHOTOS = 512  # determine the basis; their views, 0.36 GB by default for patches of 14, stay in memory meanwhile
_MIN_AREA = 0.3  # of a random view, as a fraction of the photograph's
_DONE = "done"
_HEADER, _LOCK = "features.json", "features.lock"
Views = dict[int, list[Image.Image]]  # of one photograph, by their pixels a side


class FeatureStore:
    """float16 arrays on disk with one row for each photograph; each row is computed once.

    Several processes may share a folder: they would write the same numbers.
    """

    def __init__(self, folder: Path, facts: Mapping[str, Any], count: int, shapes: Mapping[str, tuple[int, ...]]):
        """Open the arrays in `folder`, or make empty ones where there are none, or those of other facts.

        facts: everything that decides the numbers. shapes: of a row, by the name of the array.
        Raises `OutputError`, at once and not during training, when the disk has too little room.
        """
        header, wanted = folder / _HEADER, json.dumps(facts)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with FileLock(folder / _LOCK):  # one process makes the arrays, the others find them
                if not header.is_file() or header.read_text() != wanted:
                    header.unlink(missing_ok=True)
                    for name, shape in shapes.items():
                        _allocate(folder / f"{name}.npy", np.float16, (count, *shape))
                    _allocate(folder / f"{_DONE}.npy", np.uint8, (count,))
                    write_text(header, wanted)
            self.arrays = {name: np.load(folder / f"{name}.npy", mmap_mode="r+") for name in shapes}
            self.done = np.load(folder / f"{_DONE}.npy", mmap_mode="r+")
        except OSError as error:
            need = 2 * count * sum(int(np.prod(shape)) for shape in shapes.values()) / 2**30
            reason = error.strerror or error
            raise OutputError(f"{folder}: the teachers' features need {need:.1f} GiB there ({reason})") from error

    def fill(self, index: int, compute: Callable[[], Mapping[str, Tensor]]) -> None:
        """Compute a row, unless it is there."""
        if not self.done[index]:
            for name, tensor in compute().items():
                self.arrays[name][index] = tensor.cpu().to(torch.float16).numpy()
            self.done[index] = 1  # last: a row that a kill left half written is computed again


def is_store(folder: Path) -> bool:
    """Whether a folder is a `FeatureStore`, or one that was begun: the lock is made before all else."""
    try:
        facts = json.loads((folder / _HEADER).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        facts = None
    return (isinstance(facts, dict) and "photos" in facts) or (folder / _LOCK).is_file()


class PhotoFeatures(NamedTuple):
    """What the heads learn from, for one photograph."""

    inner: Tensor  # (width, grid, grid): what the heads read
    values: Tensor  # (c, grid, grid): the teacher's patch tokens, of unit length
    objectness: Tensor  # (grid, grid) in 0..1: where the object is


class TeacherFeatures:
    """`PhotoFeatures` of photographs, by number; each photograph is seen whole, in a square of `size` pixels."""

    def __init__(
        self,
        backbone: Backbone,
        teacher: Backbone | None,
        folder: Path,
        photos: Sequence[Path],
        size: int,
        masks: Path | None,
        out: Path,
    ):
        """teacher: its patch tokens say what belongs together; None for the backbone, at its last attention's values.

        folder: of the photographs. masks: folder of the objects' masks. out: where the features are kept.
        """
        self.carrier: HeadBackbone = head_backbone(_at_values(backbone) if teacher is None else backbone)
        self.teacher = None if teacher is None else _at_values(teacher)
        self.folder, self.photos, self.masks = folder, photos, masks
        self.grid = size // backbone.spec.patch
        names = "\n".join(photo.relative_to(folder).as_posix() for photo in photos)
        self.facts = {
            "weights": backbone.identity,
            "teacher": self.teacher.identity if self.teacher else "",
            "photos": hashlib.sha256(names.encode("utf-8", "surrogateescape")).hexdigest(),
            "count": len(photos),
            "size": size,
            "masks": str(masks or ""),
        }
        self.store = FeatureStore(out, self.facts, len(photos), self._shapes())

    def __call__(self, index: int) -> PhotoFeatures:
        """The features of a photograph by its number."""
        self.store.fill(index, lambda: self._encode(index)._asdict())
        return PhotoFeatures(*(_float(self.store.arrays[name][index]) for name in PhotoFeatures._fields))

    def _shapes(self) -> dict[str, tuple[int, ...]]:
        patch = (self.teacher or self.carrier).spec.patch
        probe = torch.zeros(1, 3, 4 * patch, 4 * patch)
        dense = self.carrier.encode_inner(probe)[0] if self.teacher is None else self.teacher.encode(probe).dense
        grid_hw = (self.grid, self.grid)
        return {"inner": (self.carrier.width, *grid_hw), "values": (dense.shape[1], *grid_hw), "objectness": grid_hw}

    def _encode(self, index: int) -> PhotoFeatures:
        image = read_image(self.photos[index])
        dense, token, inner = self.carrier.encode_inner(self._pixels(image, self.carrier))
        encoding = Encoding(dense, token)
        if self.teacher is not None:
            encoding = self.teacher.encode(self._pixels(image, self.teacher))
        values = F.normalize(encoding.dense[0].float().cpu(), dim=0)
        prior = None if encoding.objectness is None else encoding.objectness[0].float().cpu()
        mask = mask_of(self.photos[index], self.folder, self.masks)
        return PhotoFeatures(inner[0], values, objectness_target(values, mask, prior))

    def _pixels(self, image: RGB, backbone: HeadBackbone | Backbone) -> Tensor:
        """The whole photograph on the same grid for every patch size."""
        whole, spec = (0, 0, image.shape[1], image.shape[0]), backbone.spec
        return to_pixels([crop_resize(image, whole, self.grid * spec.patch)], spec.mean_rgb, spec.std_rgb)


@dataclass(frozen=True)
class TargetSettings:
    """What a student is to reproduce."""

    grid: int = 20
    """Patches a side that the teachers see."""
    views: int = 3
    """Views of each photograph: the whole, and random boxes of at least 30 % of its area."""
    dim: int = 192
    """Channels of a target."""
    seed: int = 0
    """Seed of the random views."""

    def box(self, size_hw: tuple[int, int], photo: int, view: int) -> tuple[int, int, int, int]:
        """The box (left, top, right, bottom) of a view by its number, in a photograph by its number."""
        if view == 0:
            return 0, 0, size_hw[1], size_hw[0]
        return random_resized_crop_box(size_hw, seeded_rng(self.seed, photo, view), _MIN_AREA)


class Targets(NamedTuple):
    """What a student is to reproduce, for all photographs."""

    dense: NDArray[np.float16]
    """(photos, views, grid * grid, dim)."""
    token: NDArray[np.float16]
    """(photos, views, dim)."""
    objectness: NDArray[np.float16]
    """(photos, grid, grid) in 0..1, of the whole photograph."""
    explained_variance: float
    """Fraction of the squared length of the teachers' patch tokens that `dim` channels hold."""


def distillation_targets(
    teachers: Sequence[Backbone],
    folder: Path,
    photos: Sequence[Path],
    settings: TargetSettings,
    out: Path,
    *,
    masks: Path | None = None,
    progress: Progress | None = None,
) -> Targets:
    """Targets of all photographs, computed or read from `out` as far as an earlier call computed them.

    Patch tokens of all teachers stand side by side, so that their cosines are the mean of the teachers' cosines, and
    are projected onto their principal components: far fewer channels then hold nearly the same cosines. No mean is
    subtracted first, since kshot's methods compare plain cosines. Each photograph is decoded once.
    masks: folder of the objects' masks. Raises `OutputError`.
    """
    facts = {
        "teachers": [teacher.identity for teacher in teachers],
        "photos": [photo.relative_to(folder).as_posix() for photo in photos],
        "settings": asdict(settings),
        "masks": str(masks) if masks else None,
    }
    tokens = settings.grid * settings.grid
    shapes = {
        "dense": (settings.views, tokens, settings.dim),
        "token": (settings.views, settings.dim),
        "objectness": (settings.grid, settings.grid),
    }
    store = FeatureStore(out, facts, len(photos), shapes)
    encoder = TeacherEncoder(teachers, settings)
    views: dict[int, Views] = {}
    basis, explained = _kept_basis(out / "basis.npz", json.dumps(facts), partial(pca_basis, encoder, photos, views))

    def compute(index: int) -> dict[str, Tensor]:
        seen = views.pop(index, None) or encoder.views(read_image(photos[index]), index)
        dense, token = encoder.encode(seen)
        whole = dense[0].T.reshape(-1, settings.grid, settings.grid)
        mask = mask_of(photos[index], folder, masks)
        return {"dense": dense @ basis, "token": token @ basis, "objectness": objectness_target(whole, mask)}

    for index in range(len(photos)):
        if not store.done[index]:
            store.fill(index, partial(compute, index))
            if progress:
                progress("targets", index + 1, len(photos), {})
    return Targets(**store.arrays, explained_variance=explained)


class TeacherEncoder:
    """Encodes the views of a photograph with all teachers."""

    def __init__(self, teachers: Sequence[Backbone], settings: TargetSettings):
        self.teachers, self.settings = teachers, settings

    def views(self, image: RGB, index: int) -> Views:
        """The views of a photograph, which has the number `index`, at the sizes of all teachers."""
        size_hw = (image.shape[0], image.shape[1])
        boxes = [self.settings.box(size_hw, index, view) for view in range(self.settings.views)]
        sides = {self._side(teacher) for teacher in self.teachers}
        return {side: [crop_resize(image, box, side) for box in boxes] for side in sides}

    def encode(self, views: Views) -> tuple[Tensor, Tensor]:
        """Patch tokens (views, grid * grid, all channels) and image embeddings (views, all channels), of unit length.

        A teacher without an image embedding gives the mean of its patch tokens.
        """
        dense, tokens = [], []
        for teacher in self.teachers:
            pixels = to_pixels(views[self._side(teacher)], teacher.spec.mean_rgb, teacher.spec.std_rgb)
            encoding = teacher.encode(pixels)
            patches = F.normalize(encoding.dense.float().cpu(), dim=1).flatten(2).transpose(1, 2)
            token = patches.mean(1) if encoding.token is None else encoding.token.float().cpu()
            dense.append(patches)
            tokens.append(F.normalize(token, dim=1))
        scale = len(self.teachers) ** -0.5
        return torch.cat(dense, 2) * scale, torch.cat(tokens, 1) * scale

    def _side(self, teacher: Backbone) -> int:
        return self.settings.grid * teacher.spec.patch


def pca_basis(encoder: TeacherEncoder, photos: Sequence[Path], views: dict[int, Views]) -> tuple[Tensor, float]:
    """Orthonormal principal directions (all channels, dim) of patch tokens, and the fraction of their squares held.

    The first 512 photographs are encoded whole. views: gets all their views, which saves decoding them again.
    """
    total = torch.zeros(())
    for index, photo in enumerate(photos[:_BASIS_PHOTOS]):
        views[index] = encoder.views(read_image(photo), index)
        tokens = encoder.encode({side: each[:1] for side, each in views[index].items()})[0][0]
        total = total + tokens.T @ tokens
    values, vectors = torch.linalg.eigh(total.double())
    dim = encoder.settings.dim
    explained = values.flip(0)[:dim].sum() / values.sum()
    return vectors.flip(1)[:, :dim].float().contiguous(), float(explained)


def _kept_basis(path: Path, facts: str, compute: Callable[[], tuple[Tensor, float]]) -> tuple[Tensor, float]:
    """The basis in a file, computed and written where the file is missing or of other facts."""
    if path.is_file():
        with np.load(path) as file:
            if str(file["facts"]) == facts:
                return torch.from_numpy(file["basis"]), float(file["explained_variance"])
    basis, explained = compute()
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        np.savez(file, facts=facts, basis=basis.numpy(), explained_variance=explained)
    return basis, explained


def _at_values(backbone: Backbone) -> Backbone:
    """A transformer read at the values of its last attention; CLIP's patch tokens are its values already (MaskCLIP)."""
    return backbone.values() if isinstance(backbone, HubBackbone) else backbone


def _allocate(path: Path, dtype: type[np.generic], shape: tuple[int, ...]) -> None:
    np.lib.format.open_memmap(path, mode="w+", dtype=dtype, shape=shape)
    if hasattr(os, "posix_fallocate"):  # a full disk says so now; a mapped page could only kill the process
        with path.open("r+b") as file:
            os.posix_fallocate(file.fileno(), 0, path.stat().st_size)


def _float(array: NDArray[np.float16]) -> Tensor:
    return torch.from_numpy(array.astype(np.float32))
