"""Masks that are larger than any image read whole: written in every format with a few bytes a pixel, and exactly."""

import json
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from PIL import Image
from scipy.ndimage import find_objects
from skimage.measure import label

from kshot.annotations import rle
from kshot.annotations.model import Annotation, AnnotationSet, Export
from kshot.formats import coco, cvat, kshot_run, label_studio, labelme, voc, yolo
from kshot.formats.png import save_labels
from kshot.io import images
from kshot.ops import components, polygons
from kshot.ops.components import connected_components

SIDE = 3000
LABELS = arrays(np.uint8, array_shapes(min_dims=2, max_dims=2, max_side=9), elements=st.sampled_from([0, 1, 2, 255]))
MASKS = arrays(np.bool_, array_shapes(min_dims=2, max_dims=2, max_side=9))


def run_of(folder: Path, mask: np.ndarray, classes: tuple[str, ...]) -> AnnotationSet:
    """A run folder with one mask, as `kshot label` leaves it."""
    save_labels(mask, folder / "masks" / "a.png")
    about = {name: {"present": 1.0, "pixels": 1, "objects": 1, "score": 0.5} for name in classes}
    record = {"input": "a.tif", "status": "done", "size_hw": list(mask.shape), "mask": "masks/a.png"}
    (folder / "manifest.jsonl").write_text(json.dumps(record | {"outputs": {"png": "masks/a.png"}, "classes": about}))
    (folder / "settings.json").write_text(json.dumps({"classes": classes, "images": str(folder)}))
    tree = kshot_run.FORMAT.read_annotations(folder)
    assert tree is not None
    return tree


@given(mask=MASKS, at_once=st.sampled_from([1, 10, 100]))
@settings(deadline=None)
def test_edges_do_not_depend_on_the_rows_at_once(mask: np.ndarray, at_once: int) -> None:
    whole = polygons.rings(mask)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(polygons, "_AT_ONCE", at_once)
        parts = polygons.rings(mask)
    assert [ring.tolist() for ring in parts] == [ring.tolist() for ring in whole]


@given(mask=MASKS, corners=st.booleans(), at_once=st.sampled_from([1, 10, 100]))
@example(mask=np.array([[1, 0], [0, 1]], bool), corners=False, at_once=1)
@example(mask=np.array([[1, 0], [0, 1]], bool), corners=True, at_once=1)
@settings(deadline=None)
def test_components_are_those_of_skimage(mask: np.ndarray, corners: bool, at_once: int) -> None:
    parts = label(mask, connectivity=2 if corners else 1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(components, "_AT_ONCE", at_once)
        found = list(connected_components(mask, corners=corners))
    assert [place for place, _ in found] == find_objects(parts)
    for index, (place, part) in enumerate(found, start=1):
        np.testing.assert_array_equal(part, parts[place] == index)


@given(
    labels=arrays(np.uint8, array_shapes(min_dims=2, max_dims=2, max_side=9), elements=st.sampled_from([0, 1, 2, 255]))
)
@settings(deadline=None)
def test_run_lengths_of_columns_are_those_of_the_whole(tmp_path_factory: pytest.TempPathFactory, labels) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(images, "_STRIP_PIXELS", 20)
        patch.setattr(rle, "_AT_ONCE", 20)
        (image,) = run_of(tmp_path_factory.mktemp("run"), labels, ("one", "two")).images
        crops = [Annotation(part.label, rle.encode_crop(*_cropped(part))) for part in image.annotations]
    whole = [Annotation.from_mask(labels == index, "") for index in (1, 2, 255) if (labels == index).any()]
    assert [part.rle for part in image.annotations] == [part.rle for part in whole] == [part.rle for part in crops]
    assert [(part.label, part.score, part.ignore) for part in image.annotations] == [
        about
        for index, about in ((1, ("one", 0.5, False)), (2, ("two", 0.5, False)), (255, ("", None, True)))
        if (labels == index).any()
    ]


def _cropped(part: Annotation) -> tuple[np.ndarray, tuple[slice, slice], tuple[int, int]]:
    left, top, mask = part.crop
    return mask, (slice(top, top + mask.shape[0]), slice(left, left + mask.shape[1])), tuple(part.rle["size"])


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> AnnotationSet:
    """One class all over the image but for a frame of holes, and one of 9 small discs."""
    rows, columns = np.ogrid[:SIDE, :SIDE]
    disc = (rows % 1000 - 500) ** 2 + (columns % 1000 - 500) ** 2 < 20**2
    hole = (rows % 1000 < 9) & (columns % 1000 < 9)
    return run_of(
        tmp_path_factory.mktemp("large"), np.where(disc, 2, np.where(hole, 0, 1)).astype(np.uint8), ("a", "b")
    )


@pytest.mark.parametrize(
    ("writer", "export", "bytes_a_pixel"),
    [
        (coco, Export(), 0.5),
        (labelme, Export(), 2.5),
        (cvat, Export(), 3.5),
        (label_studio, Export(), 3.5),
        (voc, Export(), 2.5),
        (yolo, Export(), 4.5),
        (coco, Export(polygons=True), 4.5),
    ],
)
def test_a_large_mask_takes_a_few_bytes_a_pixel(
    large: AnnotationSet, writer, export: Export, bytes_a_pixel: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(images, "_STRIP_PIXELS", 2**17)
    for module in (polygons, components, rle):
        monkeypatch.setattr(module, "_AT_ONCE", 2**17)
    tracemalloc.start()
    try:
        writer.FORMAT.write_annotations(large, tmp_path, export)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < bytes_a_pixel * SIDE**2, peak / SIDE**2


def test_wrong_masks_of_a_run_are_named(tmp_path: Path) -> None:
    tree = run_of(tmp_path, np.array([[0, 1], [3, 0]], np.uint8), ("one", "two"))
    assert not list(tree.images) and "a.png: holds the label 3, expected 0..2" in tree.skipped.failures[-1]
    Image.new("P", (5, 5)).save(tmp_path / "masks" / "a.png")
    assert not list(tree.images) and "a.png is 5 x 5 pixels and its image 2 x 2" in tree.skipped.failures[-1]
    Image.new("L", (2, 2), 1).save(tmp_path / "masks" / "a.png", format="JPEG")
    assert not list(tree.images) and "labels do not survive in a JPEG" in tree.skipped.failures[-1]
