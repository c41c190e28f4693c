"""Folders of pictures without labels."""

from pathlib import Path

import numpy as np
from PIL import Image

from kshot.backbones.base import load_backbone
from kshot.training.teacher_features import TeacherFeatures
from kshot.training.unlabelled import find_photos
from tests.support.drawing import draw


def folder_of(path: Path, count: int) -> Path:
    """Small pictures of discs in two folders."""
    for n in range(count):
        place = path / ("a" if n % 2 else "b")
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(draw(n, (40, 56))[0]).save(place / f"{n}.png")
    return path


def discs(folder: Path) -> Path:
    """Twelve square pictures of a red disc on green below "photos", and below "masks" where the disc is."""
    for name in ("photos", "masks"):
        (folder / name / "sub").mkdir(parents=True)
    for seed in range(12):
        picture, mask = draw(seed, (96, 96))
        name = f"sub/{seed}" if seed % 3 == 0 else str(seed)
        Image.fromarray(picture).save(folder / "photos" / f"{name}.png")
        Image.fromarray(mask.astype(np.uint8)).save(folder / "masks" / f"{name}.png")
    return folder


def disc_features(
    folder: Path, out: Path, name: str, teacher: str | None = None, masks: bool = False
) -> TeacherFeatures:
    """Features of the pictures of `discs`; the one that is held out comes first."""
    found, _ = find_photos(folder / "photos")
    guide = load_backbone(teacher, device="cpu") if teacher else None
    backbone = load_backbone(name, device="cpu")
    return TeacherFeatures(backbone, guide, folder / "photos", found, 96, folder / "masks" if masks else None, out)
