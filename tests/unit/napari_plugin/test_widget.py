"""The widget in a napari without a screen: painted slice in, labels of all slices out."""

import os
import warnings
from importlib.metadata import entry_points
from typing import Any

import numpy as np
import pytest

import kshot
from tests.support.drawing import draw

os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")
pytestmark = pytest.mark.filterwarnings("ignore")  # those of napari and Qt are theirs
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    napari = pytest.importorskip("napari")
pytest.importorskip("qtpy")


@pytest.fixture
def viewer() -> Any:
    """All of a viewer but its window, whose canvas wants OpenGL."""
    from napari.components import ViewerModel
    from napari.qt import get_qapp

    get_qapp()
    return ViewerModel()


def stack() -> tuple[np.ndarray, np.ndarray]:
    _, mask = draw(3, (120, 160))
    grey = np.random.default_rng(3).integers(40, 60, mask.shape).astype(np.uint8)
    grey[mask > 0] += 160
    return np.stack([np.roll(grey, 4 * step, 1) for step in range(4)]), mask


@pytest.fixture
def widget(viewer: Any, toy: kshot.Segmenter) -> Any:
    """The widget over a stack of four slices of which the third is painted."""
    from kshot.napari_plugin.widget import FewShot

    pixels, mask = stack()
    viewer.add_image(pixels, name="cells", scale=(2.5, 0.65, 0.65))
    painted = np.zeros(pixels.shape, np.int32)
    painted[2] = np.roll(mask, 8, 1)
    viewer.add_labels(painted, name="painted", scale=(2.5, 0.65, 0.65))
    made = FewShot(viewer)
    for event in (viewer.layers.events.inserted, viewer.layers.events.removed):
        event.connect(made.reset_choices)  # as napari does when it docks a widget
    made._segmenter = toy
    return made


def finish(widget: Any) -> None:
    """Let Qt hand on what the worker says, until it has ended."""
    from qtpy.QtCore import QEventLoop

    loop = QEventLoop()
    widget.worker.finished.connect(loop.quit)
    if not widget.run.enabled:  # its end is not handed on yet
        loop.exec()


def test_napari_finds_the_widget() -> None:
    npe2 = pytest.importorskip("npe2")
    found = [point for point in entry_points(group="napari.manifest") if point.name == "kshot"]
    if not found:
        pytest.skip("this kshot was installed before it had a plug-in")
    manifest = npe2.PluginManifest.from_distribution("kshot")
    (command,) = manifest.contributions.commands
    assert command.python_name == "kshot.napari_plugin.widget:FewShot"
    manifest.validate_imports()


def test_one_painted_slice_labels_the_stack(viewer: Any, widget: Any) -> None:
    assert (widget.image.value.name, widget.labels.value.name) == ("cells", "painted")
    widget.run.clicked.emit(True)
    finish(widget)
    result = viewer.layers["cells (kshot)"]
    pixels, mask = stack()
    assert result.data.shape == pixels.shape and tuple(result.scale) == (2.5, 0.65, 0.65)
    assert np.array_equal(result.data[2] > 0, np.roll(mask, 8, 1) > 0)
    for number, plane in enumerate(result.data):
        truth = np.roll(mask, 4 * number, 1) > 0
        assert (truth & (plane > 0)).sum() / (truth | (plane > 0)).sum() > 0.6, number
    assert widget.said.value == "4 of 4 slices" and widget.run.enabled and not widget.stop.enabled


def test_only_the_slice_that_is_shown_is_learned_from(viewer: Any, widget: Any) -> None:
    viewer.dims.set_current_step(0, 1)
    widget.examples.value = "the slice that is shown"
    widget.start()
    assert "Nothing is painted" in widget.said.value and "cells (kshot)" not in viewer.layers
    viewer.dims.set_current_step(0, 2)
    widget.start()
    finish(widget)
    assert viewer.layers["cells (kshot)"].data[0].any()


def test_layers_that_come_and_go_are_offered(viewer: Any, widget: Any) -> None:
    viewer.add_image(stack()[0][:2], name="others")
    assert [layer.name for layer in widget.target.choices] == ["cells", "others"]
    widget.target.value = viewer.layers["others"]
    widget.start()
    finish(widget)
    assert viewer.layers["others (kshot)"].data.shape == (2, 120, 160)
    viewer.layers.remove("painted")
    viewer.layers.remove("others (kshot)")
    widget.start()
    assert "Add an image layer" in widget.said.value


def test_labels_of_another_shape_are_said(viewer: Any, widget: Any) -> None:
    viewer.add_labels(np.ones((120, 160), np.int32), name="flat")
    widget.labels.value = viewer.layers["flat"]
    widget.start()
    assert "120 x 160 and cells is 4 x 120 x 160" in widget.said.value


def test_stop_ends_after_a_slice(viewer: Any, widget: Any) -> None:
    widget.start()
    widget.quit()
    finish(widget)
    assert widget.run.enabled and not viewer.layers["cells (kshot)"].data[3].any()
