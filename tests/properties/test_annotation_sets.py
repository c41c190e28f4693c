"""Labels of a folder come back from every format that can hold them, and lose a bounded part in the others."""

import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from scipy.ndimage import distance_transform_edt

from kshot.annotations.model import Annotation, Export, split_into_instances
from kshot.annotations.rle import decode, encode_crop, encode_polygon
from kshot.formats.base import AnnotationReader, AnnotationWriter, all_formats
from kshot.formats.label_studio import decode_brush, encode_brush
from kshot.ops.components import METHODS, split
from kshot.ops.object_shapes import ObjectShape
from kshot.ops.polygons import bridged, polygons, rings
from tests.support.annotation_sets import annotation_set, masks

SHAPES = array_shapes(min_dims=2, max_dims=2, max_side=20)
MASKS = arrays(np.bool_, SHAPES)
LABELS = arrays(np.uint8, SHAPES, elements=st.integers(0, 3))
WITH_IGNORE = arrays(np.uint8, SHAPES, elements=st.sampled_from([0, 1, 2, 3, 255]))
RING = np.pad(np.pad(np.zeros((3, 3), bool), 2, constant_values=True), 1)
BOTH_WAYS = [one for one in all_formats() if isinstance(one, AnnotationReader) and isinstance(one, AnnotationWriter)]
FORMATS = {one.name: one for one in BOTH_WAYS}
CLASSES_ALONE = {"index_masks"}
"""Formats that do not say where one object ends and the next of its class begins."""
QUICK = settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.too_slow])


def again(writer, labels: np.ndarray, export: Export) -> np.ndarray:
    """The labels after writing and reading."""
    with tempfile.TemporaryDirectory() as folder:
        written = writer.write_annotations(
            annotation_set(Path(folder) / "images", {"a b.png": labels}), Path(folder) / "out", export
        )
        # Formats of folders have images of their own.
        read = writer.read_annotations(written, None if written.is_dir() else Path(folder) / "images")
        (found,) = masks(read).values()
    return found


@pytest.mark.parametrize("polygons", [False, True])
@pytest.mark.parametrize("name", FORMATS)
@given(labels=LABELS)
@QUICK
def test_masks_and_exact_polygons_give_back_every_pixel(name, polygons, labels):
    np.testing.assert_array_equal(again(FORMATS[name], labels, Export(polygons=polygons)), labels)


@pytest.mark.parametrize("name", [name for name, one in FORMATS.items() if "ignored areas" in one.holds])
@given(labels=WITH_IGNORE)
@QUICK
def test_what_is_ignored_comes_back_where_the_format_knows_it(name, labels):
    np.testing.assert_array_equal(again(FORMATS[name], labels, Export()), labels)


@given(mask=MASKS)
@example(mask=RING)
@example(mask=np.eye(9, dtype=bool))
@settings(deadline=None)
def test_polygons_and_bridged_rings_enclose_their_mask_exactly(mask):
    inside = np.zeros_like(mask)
    for corners in polygons(mask):
        part = decode(encode_polygon(corners, mask.shape))
        assert not (inside & part).any()
        inside |= part
    np.testing.assert_array_equal(inside, mask)
    if mask.any():
        np.testing.assert_array_equal(decode(encode_polygon(bridged(rings(mask)), mask.shape)), mask)


@given(mask=MASKS, tolerance=st.floats(0.5, 3))
@settings(deadline=None)
def test_a_tolerance_moves_no_edge_further_than_it_says(mask, tolerance):
    inside = np.zeros_like(mask)
    for corners in polygons(mask, tolerance):
        inside |= decode(encode_polygon(corners, mask.shape))
    wrong = inside != mask
    # Distance of a pixel's centre to the nearest pixel of the other side: its edge is half a pixel nearer.
    rim = np.where(mask, distance_transform_edt(np.pad(mask, 1))[1:-1, 1:-1], distance_transform_edt(~mask))
    assert not wrong.any() or rim[wrong].max() <= tolerance + 0.75


@given(mask=MASKS)
@settings(deadline=None)
def test_a_brush_stroke_gives_back_its_mask(mask):
    packed = encode_brush(mask)
    assert all(0 <= byte < 256 for byte in packed)
    np.testing.assert_array_equal(decode_brush(bytes(packed), mask.shape), mask)


@pytest.mark.parametrize("method", METHODS)
@given(mask=MASKS, seed=st.integers(0, 9))
@settings(deadline=None)
def test_objects_are_a_partition_of_their_mask(method, mask, seed):
    score = np.random.default_rng(seed).random(mask.shape, np.float32)
    total = np.zeros(mask.shape, int)
    shape = ObjectShape.of([np.ones((3, 3), bool)] * 3)
    for place, crop in split(mask, score, method, shape=shape):
        part = Annotation("one", encode_crop(crop, place, mask.shape))
        left, top, again = part.crop
        np.testing.assert_array_equal(again, crop)
        assert (left, top) == (place[1].start, place[0].start) and part.area == crop.sum()
        total += part.mask
    np.testing.assert_array_equal(total, mask)


@pytest.mark.parametrize("name", sorted(FORMATS.keys() - CLASSES_ALONE))
@given(labels=LABELS)
@QUICK
def test_objects_stay_apart_and_keep_their_score(name, labels):
    writer = FORMATS[name]
    with tempfile.TemporaryDirectory() as folder:
        apart = split_into_instances(annotation_set(Path(folder) / "images", {"a.png": labels}), "components")
        written = writer.write_annotations(apart, Path(folder) / "out")
        read = writer.read_annotations(written, None if written.is_dir() else Path(folder) / "images")
        (before,), (after,) = list(apart.images), list(read.images)
    assert objects(before) == objects(after)
    if "scores" in writer.holds:
        assert {part.score for part in after.annotations} <= {0.5}


def objects(image) -> list[tuple[str, bytes]]:
    return sorted((part.label, part.mask.tobytes()) for part in image.annotations)
