"""What was written comes back, for any mask."""

import contextlib
import io
import tempfile
from pathlib import Path

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from pycocotools.coco import COCO

from kshot.formats import coco, kshot_run, png, scores
from kshot.io.images import read_mask
from kshot.types import Prediction

MASKS = arrays(np.uint8, array_shapes(min_dims=2, max_dims=2, max_side=24))
FEW = arrays(np.uint8, array_shapes(min_dims=2, max_dims=2, max_side=24), elements=st.integers(0, 3))
CLASSES = ("one", "two", "three")


def predicted(maps: np.ndarray, present: float = 0.5) -> Prediction:
    """A prediction from any non-negative numbers (N+1, h, w)."""
    total = maps.sum(0) + np.float32(1e-6)
    shares = (maps + np.float32(1e-6) / len(maps)) / total
    classes = CLASSES[: len(maps) - 1]
    return Prediction(
        np.zeros(maps.shape[1:], np.uint8), shares.astype(np.float32), dict.fromkeys(classes, present), classes
    )


@given(MASKS)
def test_an_index_png_gives_back_its_mask(mask):
    with tempfile.TemporaryDirectory() as folder:
        png.save_labels(mask, Path(folder) / "x.png")
        again = read_mask(Path(folder) / "x.png")
    np.testing.assert_array_equal(again, mask)


@given(FEW)
@settings(deadline=None)
def test_coco_gives_back_its_mask_to_pycocotools_and_to_a_support_folder(mask):
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder)
        png.save_labels(mask, out / "masks/x.png")
        png.save_labels(mask, out / "x.png")
        about = {name: {"present": 1.0, "pixels": 0, "score": 0.5} for name in CLASSES}
        record = {"input": "x.png", "size_hw": mask.shape, "status": "done", "mask": "masks/x.png", "classes": about}
        path = coco.FORMAT.write_annotations(kshot_run.annotations_of_run(out, [record], CLASSES), out)
        with contextlib.redirect_stdout(io.StringIO()):
            read = COCO(str(path))
        (out / "masks/x.png").unlink()
        shots = coco.FORMAT.read_shots(out)
    again = np.zeros_like(mask)
    for annotation in read.anns.values():
        part = read.annToMask(annotation) > 0
        assert annotation["area"] == part.sum() and not (again[part] > 0).any()
        again[part] = annotation["category_id"]
    np.testing.assert_array_equal(again, mask)
    for shot in shots or ():
        for label, name in shot.label.items():
            np.testing.assert_array_equal(shot.mask == label, mask == CLASSES.index(name) + 1)
        assert len(shot.label) == len(set(np.unique(mask).tolist()) - {0})


@given(
    arrays(
        np.float32,
        st.tuples(st.integers(2, 4), st.integers(1, 12), st.integers(1, 12)),
        elements=st.floats(0, 1, width=32),
    ),
    st.floats(0, 1),
)
def test_scores_come_back_within_half_a_step(maps, present):
    found = predicted(maps, present)
    with tempfile.TemporaryDirectory() as folder:
        scores.FORMAT.write(found, Path(folder) / "x.npz")
        again, classes, presence = scores.read(Path(folder) / "x.npz")
    assert np.abs(again - found.scores).max() <= 1 / 131070 + 2e-7  # half a step, and the rounding of float32
    assert (classes, presence) == (found.classes, found.present)
