"""The function of `kshot cvat-function`, loaded and run as `cvat-cli` does: the extra `interop`.

The SDK's own driver checks the labels and each shape, and gives them the numbers of the CVAT task; its server is
replaced by lists, since there is none here.
"""

import importlib.util
import logging
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.support.commands import TOY, run
from tests.support.drawing import draw

cvat = pytest.importorskip("cvat_sdk.auto_annotation", reason="needs cvat-sdk (pip install 'kshot[interop]')")
models = pytest.importorskip("cvat_sdk.models")
masks = pytest.importorskip("cvat_sdk.masks")
driver = pytest.importorskip("cvat_sdk.auto_annotation.driver")


class Context(cvat.DetectionFunctionContext):  # type: ignore[misc, name-defined]
    def __init__(self, threshold: float | None = None, polygons: bool = False):
        self._threshold, self._polygons = threshold, polygons

    frame_name = property(lambda self: "1.png")
    conf_threshold = property(lambda self: self._threshold)
    conv_mask_to_poly = property(lambda self: self._polygons)


@pytest.fixture(scope="module")
def function(tmp_path_factory: pytest.TempPathFactory) -> Any:
    place = tmp_path_factory.mktemp("cvat")
    (place / "support" / "disc").mkdir(parents=True)
    picture, inside = draw(0)
    Image.fromarray(picture).save(place / "support" / "disc" / "0.jpg", quality=98)
    Image.fromarray((255 * inside).astype(np.uint8)).save(place / "support" / "disc" / "0.png")
    run("fit", place / "support", "-o", place / "disc.kshot", *TOY)
    run("cvat-function", place / "disc.kshot", "-o", place / "kshot_disc.py")
    spec = importlib.util.spec_from_file_location("kshot_disc", place / "kshot_disc.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.create()


def in_cvat(function: Any, context: Context, seed: int) -> list[Any]:
    """The shapes as CVAT's driver takes them, for a task whose label disc is number 41."""
    label = models.Label(id=41, name="disc", attributes=[], sublabels=[], type="any")
    options = {"allow_unmatched_labels": False, "conv_mask_to_poly": context.conv_mask_to_poly}
    mapped = driver._AnnotationMapper(logging.getLogger(), function.spec.labels, [label], **options)
    shapes = function.detect(context, Image.fromarray(draw(seed)[0]))
    mapped.validate_and_remap(shapes, 0)
    return shapes


def test_masks_are_those_of_the_disc(function: Any) -> None:
    (shape,) = in_cvat(function, Context(), 1)
    truth = draw(1)[1]
    found = masks.decode_mask(shape.points, image_width=truth.shape[1], image_height=truth.shape[0])
    assert (shape.type.value, shape.label_id) == ("mask", 41)
    assert (found & truth).sum() / (found | truth).sum() > 0.6


def test_polygons_where_they_are_asked_for(function: Any) -> None:
    shapes = in_cvat(function, Context(polygons=True), 1)
    corners = np.array(shapes[0].points).reshape(-1, 2)
    assert shapes[0].type.value == "polygon" and len(corners) >= 4
    assert draw(1)[1][tuple(corners.mean(0).astype(int)[::-1])]


def test_a_threshold_leaves_out_what_is_less_certain(function: Any) -> None:
    assert in_cvat(function, Context(0.0), 1) and not in_cvat(function, Context(1.0), 1)
