"""Prompts grow into what they lie on."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from kshot.backbones.base import load_backbone
from kshot.features import extract
from kshot.ops.geometry import FeatureMap, Frame, coverage, to_grid
from kshot.ops.prompt_masks import grow_boxes, grow_marks, salient
from kshot.ops.random_walker import build_feature_graph

NONE = np.zeros((0, 2))
PATCH = 8


def points(*xy: tuple[float, float]) -> NDArray[np.float64]:
    return np.array(xy, np.float64).reshape(-1, 2)


def boxes(*xyxy: tuple[float, float, float, float]) -> NDArray[np.float64]:
    return np.array(xyxy, np.float64).reshape(-1, 4)


def painted(regions: Tensor, noise: float = 0.3, seed: int = 0) -> FeatureMap:
    """Features of a grid of region numbers (gh, gw): a random direction per region, noise on top."""
    generator = torch.Generator().manual_seed(seed)
    directions = F.normalize(torch.randn(8, 16, generator=generator), dim=1)
    cells = directions[regions] + noise * torch.randn(*regions.shape, 16, generator=generator) / 4
    height, width = regions.shape
    size_hw = height * PATCH, width * PATCH
    return FeatureMap(F.normalize(cells, dim=-1).permute(2, 0, 1), Frame(size_hw, size_hw, PATCH))


def disc(side: int = 20, radius: float = 5.5, centre: tuple[float, float] = (9.5, 9.5)) -> Tensor:
    y, x = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    return ((y - centre[0]) ** 2 + (x - centre[1]) ** 2 <= radius**2).long()


def iou(found: Tensor, truth: Tensor) -> float:
    shown, wanted = found > 0.5, truth > 0.5
    return float((shown & wanted).sum() / (shown | wanted).sum())


def at(x: float, y: float) -> tuple[float, float]:
    """The middle of the cell in column x and row y, in pixels."""
    return (x + 0.5) * PATCH, (y + 0.5) * PATCH


def test_a_box_around_a_disc_gives_the_disc() -> None:
    truth = disc()
    box = boxes((4 * PATCH, 4 * PATCH, 16 * PATCH, 16 * PATCH))
    found = grow_boxes(painted(truth), box, NONE, NONE)
    assert iou(found, truth) > 0.95  # the filled box has 96 / 144 = 0.67


def test_outside_of_the_box_is_zero_and_a_cut_cell_keeps_its_part() -> None:
    truth = disc()
    box = boxes((4 * PATCH, 4 * PATCH, 9.5 * PATCH, 16 * PATCH))  # column 9 is half inside
    found = grow_boxes(painted(truth), box, NONE, NONE)
    assert found[:, 10:].max() == 0
    assert found[:4].max() == 0
    assert found[:, 9].max() == pytest.approx(0.5)
    assert found[9, 7] > 0.9


def test_two_boxes_give_both_objects() -> None:
    truth = disc(24, 3.5, (5.5, 5.5)) + 2 * disc(24, 3.5, (17.5, 17.5))
    box = boxes((PATCH, PATCH, 11 * PATCH, 11 * PATCH), (13 * PATCH, 13 * PATCH, 23 * PATCH, 23 * PATCH))
    features = painted(truth)
    both = grow_boxes(features, box, NONE, NONE)
    assert iou(both, truth.clamp(max=1)) > 0.9
    alone = torch.stack([grow_boxes(features, box[i : i + 1], NONE, NONE) for i in range(2)])
    assert torch.equal(both, alone.amax(0))


def test_a_box_over_the_whole_image_still_finds_the_object() -> None:
    truth = disc()
    found = grow_boxes(painted(truth), boxes((0, 0, 160, 160)), NONE, NONE)
    assert iou(found, truth) > 0.9


def test_a_positive_point_says_which_of_two_things_in_the_box() -> None:
    regions = torch.zeros(20, 20, dtype=torch.long)
    regions[4:16, 4:10], regions[4:16, 10:16] = 1, 2
    box = boxes((4 * PATCH, 4 * PATCH, 16 * PATCH, 16 * PATCH))
    found = grow_boxes(painted(regions), box, points(at(6, 9)), points(at(13, 9)))
    assert iou(found, regions == 1) > 0.9
    assert iou(grow_boxes(painted(regions), box, NONE, NONE), regions > 0) > 0.9


def test_a_point_grows_to_its_region_and_stops_at_the_border() -> None:
    truth = disc()
    found = grow_marks(painted(truth), points(at(8, 10)), NONE)
    assert iou(found, truth) > 0.9


def test_a_negative_point_takes_a_region_away() -> None:
    regions = torch.zeros(20, 20, dtype=torch.long)
    regions[6:14, 4:10], regions[6:14, 10:16] = 1, 2
    features = painted(regions)
    features = FeatureMap(  # two halves of one thing, rather alike
        F.normalize(features.features + 0.7 * features.features[:, 8:9, 6:7] * (regions > 0), dim=0), features.frame
    )
    without = grow_marks(features, points(at(6, 9)), NONE)
    with_negative = grow_marks(features, points(at(6, 9)), points(at(13, 9)))
    assert iou(without, regions > 0) > 0.8
    assert iou(with_negative, regions == 1) > 0.8


def test_a_marked_cell_is_sure_even_where_both_kinds_meet() -> None:
    features = painted(disc())
    found = grow_marks(features, points(at(9, 9)), points(at(0, 0), at(9, 9)))
    assert found[9, 9] == 1
    assert found[0, 0] == 0


@pytest.mark.parametrize("corner", [(0.0, 0.0), (160.0, 160.0), (159.9, 0.0)])
def test_a_point_on_the_edge_of_the_image(corner: tuple[float, float]) -> None:
    truth = 1 - disc()
    found = grow_marks(painted(truth), points(corner), NONE)
    row, column = painted(truth).frame.patch_at(*corner)
    assert found[row, column] == 1
    assert found[9, 9] < 0.5


def test_the_odd_region_in_the_middle_is_salient() -> None:
    truth = disc(20, 4.5, (8.5, 10.5))
    assert iou(salient(painted(truth)), truth) > 0.9


def test_objectness_decides_where_there_is_one() -> None:
    regions = disc(20, 3.5, (4.5, 4.5)) + 2 * disc(20, 3.5, (14.5, 14.5))
    features = painted(regions)
    told = FeatureMap(features.features, features.frame, objectness=0.1 + 0.8 * (regions == 2).float())
    assert iou(salient(told), regions == 2) > 0.9


def test_features_that_tell_nothing_leave_the_prompt() -> None:
    features = painted(torch.zeros(20, 20, dtype=torch.long), noise=0)
    found = grow_boxes(features, boxes((32, 32, 128, 128)), NONE, NONE)
    assert found[9:11, 9:11].min() > 0.5
    assert found[4, 4] < 0.5


def drawn(size_hw: tuple[int, int]) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """A red ellipse on a green, noisy ground."""
    height, width = size_hw
    y, x = np.mgrid[:height, :width]
    inside = ((y - height * 0.5) / (height * 0.3)) ** 2 + ((x - width * 0.5) / (width * 0.25)) ** 2 <= 1
    picture = np.where(inside[..., None], (200, 40, 30), (40, 160, 60))
    noise = np.random.default_rng(0).integers(-20, 20, picture.shape)
    return (picture + noise).clip(0, 255).astype(np.uint8), inside


@pytest.mark.parametrize("backbone", ["toy", "classic"])
@pytest.mark.parametrize("size_hw", [(150, 150), (120, 210)])
def test_a_drawn_picture(backbone: str, size_hw: tuple[int, int]) -> None:
    picture, inside = drawn(size_hw)
    features = extract(load_backbone(backbone, device="cpu"), picture, 160)
    truth = to_grid(torch.from_numpy(inside).float(), features.frame) * coverage(features.frame)
    height, width = size_hw
    box = boxes((0.25 * width, 0.2 * height, 0.75 * width, 0.8 * height))
    assert iou(grow_boxes(features, box, NONE, NONE), truth) > 0.85
    middle, corner = points((width / 2, height / 2)), points((5, 5))
    assert iou(grow_marks(features, middle, corner), truth) > 0.75
    assert iou(salient(features), truth) > 0.75


def test_negative_points_all_over_the_box_leave_one_cell() -> None:
    box = boxes((72, 72, 88, 80))  # columns 9 and 10 of row 9
    found = grow_boxes(painted(disc()), box, NONE, points(at(9, 9), at(10, 9)))
    assert found.sum() == 1
    assert found[9, 9:11].sum() == 1


@settings(max_examples=60, deadline=None)
@given(
    size_hw=st.tuples(st.integers(1, 90), st.integers(1, 90)),
    size=st.integers(8, 80),
    seed=st.integers(0, 99),
    flat=st.booleans(),
    at_xy=st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=2, max_size=5),
)
def test_masks_lie_in_0_to_1_less_the_padding_and_show_something(
    size_hw: tuple[int, int], size: int, seed: int, flat: bool, at_xy: list[tuple[float, float]]
) -> None:
    frame = Frame.fit(size_hw, size, PATCH)
    generator = torch.Generator().manual_seed(seed)
    cells = torch.ones(4, *frame.grid_hw) if flat else torch.randn(4, *frame.grid_hw, generator=generator)
    features = FeatureMap(F.normalize(cells, dim=0), frame)
    xy = np.array(at_xy) * (size_hw[1], size_hw[0])
    box = np.concatenate([xy.min(0), xy.max(0) + 0.25])[None]
    whole = coverage(frame)
    for found in (
        grow_boxes(features, box, NONE, NONE),
        grow_boxes(features, box, xy[:1], xy[1:]),
        grow_marks(features, xy[:1], NONE),
        grow_marks(features, xy[:1], xy[1:]),
        salient(features),
    ):
        assert found.shape == frame.grid_hw
        assert bool((found >= 0).all())
        assert bool((found <= whole + 1e-6).all())
        assert float(found.sum()) > 0


def test_the_graph_is_symmetric_and_ties_all_neighbours() -> None:
    graph = build_feature_graph(painted(disc(6, 2)))
    assert abs(graph.weights - graph.weights.T).max() < 1e-12
    neighbours = graph.weights.toarray()[7] > 0  # row 1, column 1
    assert neighbours[[0, 1, 2, 6, 8, 12, 13, 14]].all()
    assert not neighbours[7]
    assert graph.degree == pytest.approx(graph.weights.toarray().sum(1))


def test_values_settle_as_a_direct_solver_says() -> None:
    graph = build_feature_graph(painted(disc(5, 1.5)))
    wanted, trust = torch.linspace(0, 1, 25), torch.linspace(0.5, 2, 25)
    dense = torch.from_numpy(graph.weights.toarray())
    system = torch.diag(dense.sum(1) + trust) - dense
    expected = torch.linalg.solve(system, (trust * wanted).double())
    assert torch.allclose(graph.random_walker(wanted, trust).double(), expected, atol=2e-3)


@pytest.mark.parametrize("size_hw", [(8, 8), (8, 80), (80, 8), (3, 5)])
def test_grids_of_one_cell_and_of_one_row(size_hw: tuple[int, int]) -> None:
    grid_hw = math.ceil(size_hw[0] / PATCH), math.ceil(size_hw[1] / PATCH)
    cells = F.normalize(torch.randn(4, *grid_hw, generator=torch.Generator().manual_seed(0)), dim=0)
    features = FeatureMap(cells, Frame(size_hw, size_hw, PATCH))
    middle = points((size_hw[1] / 2, size_hw[0] / 2))
    for found in (
        grow_boxes(features, boxes((0, 0, size_hw[1], size_hw[0])), NONE, NONE),
        grow_marks(features, middle, NONE),
        salient(features),
    ):
        assert found.shape == grid_hw
        assert found.max() == pytest.approx(float(coverage(features.frame).max()))
