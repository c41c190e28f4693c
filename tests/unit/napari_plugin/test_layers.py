"""Layers as arrays, without napari: which planes are painted, and what is predicted in the others."""

from pathlib import Path

import numpy as np
import pytest
import yaml

import kshot
from kshot import napari_plugin
from kshot.errors import ShapeError, SupportError
from kshot.napari_plugin.layers import Painted, Slices, fit, predicted
from tests.support.drawing import draw


def discs(seed: int = 3) -> tuple[np.ndarray, np.ndarray]:
    """A grey plane of 16 bits with bright discs, and where they are."""
    _, mask = draw(seed, (120, 160))
    grey = np.random.default_rng(seed).integers(400, 600, mask.shape).astype(np.uint16)
    grey[mask > 0] += 1600
    return grey, mask > 0


@pytest.fixture
def stack() -> Slices:
    """(2, 3, h, w): the discs move to the right from plane to plane."""
    planes = np.stack([np.roll(discs()[0], 4 * step, 1) for step in range(6)])
    return Slices(planes.reshape(2, 3, 120, 160), "cells", limits=(0, 2550))


def painted(stack: Slices, numbers: tuple[int, ...] = (2,), values: int = 1, **how: bool) -> Painted:
    labels = np.zeros(stack.shape, np.int64)
    for number in numbers:
        labels[stack.place(number)] = np.roll(discs()[1], 4 * number, 1) * values
    return Painted(labels, stack, **how)


def test_planes_are_counted_over_all_axes_but_the_last_two(stack: Slices) -> None:
    assert (len(stack), stack.shape, stack.place(4)) == (6, (2, 3, 120, 160), (1, 1))
    assert stack.number((1, 2, 60, 80)) == 5 and stack.number((7, 1, 2, 60, 80)) == 5
    assert stack.number((9, 9, 0, 0)) == 5  # where other layers have more slices
    flat = Slices(stack.data[0, 0], limits=(0, 2550))
    assert (len(flat), flat.place(0), flat.number((3, 60, 80))) == (1, (), 0)
    colours = Slices(np.zeros((4, 20, 30, 3), np.uint8), colours=True)
    assert (len(colours), colours.shape) == (4, (4, 20, 30)) and colours.image(3).shape == (20, 30, 3)
    for shape in ((5,), (0, 20, 30)):
        with pytest.raises(ShapeError, match="planes"):
            Slices(np.zeros(shape))


def test_planes_are_seen_as_they_are_shown(stack: Slices) -> None:
    image = stack.image(0)
    assert image.shape == (120, 160, 3) and np.array_equal(image[..., 0], np.rint(stack.data[0, 0] / 10))
    floats = Slices(np.full((20, 30), -3.5, np.float32), limits=(-4, -3))
    assert (floats.image(0) == 128).all()


def test_painted_planes_are_found_and_labels_of_another_shape_refused(stack: Slices) -> None:
    assert painted(stack, (1, 4)).numbers() == [1, 4] and painted(stack, ()).numbers() == []
    with pytest.raises(ShapeError, match="3 x 120 x 160 and cells is 2 x 3 x 120 x 160"):
        Painted(np.zeros((3, 120, 160), np.int64), stack)


def test_one_painted_plane_labels_the_others_and_stays(toy: kshot.Segmenter, stack: Slices) -> None:
    given = painted(stack)
    task = fit(toy, given, given.numbers())
    found = list(predicted(toy, task, stack, given))
    assert len(found) == 6 and all(plane.dtype == np.int32 for plane in found)
    assert np.array_equal(found[2] > 0, given.plane(2) > 0)
    for number, plane in enumerate(found):
        truth = np.roll(discs()[1], 4 * number, 1)
        assert (truth & (plane > 0)).sum() / (truth | (plane > 0)).sum() > 0.6, number


def test_an_object_keeps_its_number_from_plane_to_plane(toy: kshot.Segmenter, stack: Slices) -> None:
    given = painted(stack)
    found = list(predicted(toy, fit(toy, given, [2]), stack, given))
    (number,) = set(np.unique(found[2])) - {0}
    assert all(number in plane for plane in found)
    apart = list(predicted(toy, fit(toy, given, [2]), stack, given, related=False))
    assert all(set(np.unique(plane)) == set(range(plane.max() + 1)) for plane in apart)


def test_numbers_may_be_classes(toy: kshot.Segmenter, stack: Slices) -> None:
    given = painted(stack, values=7, objects=False)
    task = fit(toy, given, given.numbers())
    assert task.classes == ("label 7",)
    found = list(predicted(toy, task, stack, given))
    assert all(set(np.unique(plane)) == {0, 7} for plane in found)
    with pytest.raises(SupportError, match=r"300.*numbers are objects"):
        painted(stack, values=300, objects=False).shot(2)


def test_another_layer_is_predicted_whole(toy: kshot.Segmenter, stack: Slices) -> None:
    given = painted(stack)
    other = Slices(stack.data[0], "others", limits=(0, 2550))
    assert len(list(predicted(toy, fit(toy, given, [2]), other))) == 3


def test_nothing_painted_is_refused(toy: kshot.Segmenter, stack: Slices) -> None:
    with pytest.raises(SupportError, match="paint the objects"):
        fit(toy, painted(stack, ()), [])


def test_the_manifest_names_what_is_there() -> None:
    manifest = yaml.safe_load((Path(napari_plugin.__file__).parent / "napari.yaml").read_text())
    (command,), (widget,) = manifest["contributions"]["commands"], manifest["contributions"]["widgets"]
    module, _, name = command["python_name"].partition(":")
    path = Path(napari_plugin.__file__).parents[2] / f"{module.replace('.', '/')}.py"
    assert f"class {name}:" in path.read_text() and widget["command"] == command["id"]
