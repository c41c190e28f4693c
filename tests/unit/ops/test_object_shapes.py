"""Objects that touch come apart where their parts are more like known objects than the whole is."""

import itertools
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from kshot.errors import SettingError
from kshot.ops import object_shapes
from kshot.ops.components import split
from kshot.ops.measures import solidity
from kshot.ops.object_shapes import ObjectShape


def disc(radius: int, size_hw: tuple[int, int] = (80, 160), at: tuple[int, int] = (40, 40)) -> np.ndarray:
    rows, columns = np.mgrid[: size_hw[0], : size_hw[1]]
    return (rows - at[0]) ** 2 + (columns - at[1]) ** 2 < radius**2


def ellipse(long: int, short: int) -> np.ndarray:
    rows, columns = np.mgrid[:80, :160]
    return ((rows - 40) / short) ** 2 + ((columns - 80) / long) ** 2 < 1


def test_the_shape_is_that_of_the_objects() -> None:
    shape = ObjectShape.of([np.ones((4, 4), bool), np.ones((8, 8), bool), np.zeros((2, 2), bool)])
    assert shape is not None and (shape.count, shape.solidity, shape.solidity_std) == (2, 1, 0)
    # Of the 80 pixels 16 lie in an object of 16, and 64 in one of 64.
    assert shape.log_area == pytest.approx(0.2 * math.log(16) + 0.8 * math.log(64)) and shape.pixels == 80
    assert shape.log_area_std == pytest.approx(math.log(4) * 0.4)
    assert ObjectShape.of([]) is None and ObjectShape.pooled([]) is None


def test_pooled_sets_have_the_shape_of_all_their_objects() -> None:
    squares = [np.ones((side, side), bool) for side in (3, 5, 9, 4)]
    whole, parts = (
        ObjectShape.of(squares),
        ObjectShape.pooled([ObjectShape.of(squares[:1]), ObjectShape.of(squares[1:])]),
    )
    assert parts is not None and whole is not None and parts.count == 4
    assert (parts.log_area, parts.log_area_std) == pytest.approx((whole.log_area, whole.log_area_std))
    assert parts.pixels == whole.pixels == 9 + 25 + 81 + 16


def test_what_one_object_is_like_decides_where_a_component_is_cut() -> None:
    """Two discs that overlap by half are one object to who knows long objects, and two to who knows discs."""
    pair = disc(20, at=(40, 60)) | disc(20, at=(40, 85))
    of_discs, of_pairs = ObjectShape.of([disc(20)]), ObjectShape.of([pair])
    assert [len(list(split(pair, None, "learned", shape=shape))) for shape in (of_discs, of_pairs)] == [2, 1]


def test_a_long_object_stays_whole_though_it_is_large() -> None:
    long = ellipse(60, 14)
    assert len(list(split(long, None, "learned", shape=ObjectShape.of([long])))) == 1
    assert len(list(split(long, None, "learned", shape=ObjectShape.of([disc(5)])))) == 1  # no peaks to part it at


def test_no_part_is_less_like_the_known_objects_than_the_whole_was() -> None:
    """A knob on a disc is no object of its own, though the disc without it is the more like a disc."""
    knob = disc(20, at=(40, 60)) | disc(7, at=(40, 84))
    shape = ObjectShape.of([disc(20)] * 4)
    assert len(list(split(knob, None, "learned", shape=shape))) == 1


def test_without_a_known_object_the_way_out_is_named() -> None:
    with pytest.raises(SettingError, match="use watershed"):
        list(split(disc(9), None, "learned"))


@settings(deadline=None, max_examples=60)
@given(mask=arrays(np.bool_, st.tuples(st.integers(1, 14), st.integers(1, 14))), area=st.integers(1, 40))
def test_parts_are_disjoint_and_make_up_the_mask(mask: np.ndarray, area: int) -> None:
    total = np.zeros(mask.shape, int)
    for place, inside in split(mask, None, "learned", shape=ObjectShape(1, math.log(area), 0.1, 0.9, 0.1)):
        assert inside.any(0).all() or inside.any(1).all()
        total[place] += inside
    assert np.array_equal(total, mask.astype(int))


def test_ten_thousand_touching_objects_come_apart() -> None:
    """In one component of a million pixels; a region of the whole image for each would be 20,000 million pixels."""
    one = disc(6, (11, 11), (5, 5)) | np.eye(11, dtype=bool)
    found = list(split(np.tile(one, (100, 100)), None, "learned", shape=ObjectShape.of([one] * 5)))
    assert len(found) == 10_000 and sum(crop.nbytes for _, crop in found) < 2 * 121 * 10_000


def test_ten_thousand_ragged_objects_come_apart() -> None:
    """Holes and noisy scores make several basins of each object, and thin lines join all of them."""
    rng = np.random.default_rng(0)
    one = disc(6, (14, 14), (7, 7))
    one[7] = one[:, 7] = True
    mask = np.tile(one, (100, 100))
    score = rng.uniform(0.5, 1, mask.shape).astype(np.float32)
    mask &= rng.random(mask.shape) < 0.98
    numbers = np.zeros(mask.shape, int)
    for number, (place, crop) in enumerate(split(mask, score, "learned", shape=ObjectShape.of([disc(6)])), start=1):
        numbers[place][crop] = number
    each = numbers.reshape(100, 14, 100, 14).swapaxes(1, 2)[:, :, one].reshape(10_000, -1)
    discs = {int(np.bincount(own[own > 0]).argmax()) for own in each}
    assert len(discs) == 10_000 and numbers.max() < 10_050


@settings(deadline=None, max_examples=60)
@given(
    mask=arrays(np.bool_, st.tuples(st.integers(1, 16), st.integers(1, 16)), elements=st.integers(0, 3).map(bool)),
    steps=st.integers(0, 3),
    area=st.integers(1, 60),
    std=st.floats(0, 0.8),
    seed=st.integers(0, 9),
)
def test_the_cut_is_that_of_the_definition(mask: np.ndarray, steps: int, area: int, std: float, seed: int) -> None:
    """Pair by pair, of all pairs each time, with the pixels of each node; scores of few steps have many ties."""
    shape = ObjectShape(1, math.log(area), std, 0.9, 0.1)
    score = np.random.default_rng(seed).integers(1, steps + 2, mask.shape).astype(np.float32) / (steps + 1)
    basins, height = object_shapes._basins(mask, score)
    if not mask.any():
        return
    owners = object_shapes._best_cut(basins, height, shape)
    assert [np.flatnonzero(owners == n).tolist() for n in range(1, owners.max() + 1)] == cut_slowly(
        basins, height, shape
    )


def cut_slowly(basins: np.ndarray, height: np.ndarray, shape: ObjectShape) -> list[list[int]]:
    """The basins of each object, by the definition."""
    nodes = [{"in": [n], "cut": [[n]], "parts": []} for n in range(1, basins.max() + 1)]
    live = list(range(len(nodes)))
    while True:
        for node in nodes:
            judge(node, basins, height, shape)
        pairs = [
            (-saddle / min(nodes[a]["peak"], nodes[b]["peak"]), a, b)
            for a, b in itertools.combinations(live, 2)
            if (saddle := border(nodes[a]["mask"], nodes[b]["mask"], height))
            and not shape.too_large(int(nodes[a]["mask"].sum()), int(nodes[b]["mask"].sum()))
        ]
        if not pairs:
            return [sorted(part) for index in live for part in nodes[index]["cut"]]
        _, a, b = min(pairs)
        live = [index for index in live if index not in (a, b)] + [len(nodes)]
        nodes.append({"in": nodes[a]["in"] + nodes[b]["in"], "parts": [nodes[a], nodes[b]]})


def judge(node: dict[str, Any], basins: np.ndarray, height: np.ndarray, shape: ObjectShape) -> None:
    if "mask" in node:
        return
    mask = node["mask"] = np.isin(basins, node["in"])
    node["peak"], like = height[mask].max(), shape.likeness(int(mask.sum()), solidity(mask))
    node["least"], node["value"], node["cut"] = like, mask.sum() * like, [node["in"]]
    least = min((part["least"] for part in node["parts"]), default=0.0)
    value = sum(part["value"] for part in node["parts"])
    if least >= like and value > node["value"]:
        node["least"], node["value"] = least, value
        node["cut"] = [own for part in node["parts"] for own in part["cut"]]


def border(one: np.ndarray, other: np.ndarray, height: np.ndarray) -> float:
    """The highest saddle between two regions; 0 where they do not touch."""
    found = 0.0
    padded, high = np.pad(other, 1), np.pad(height, 1)
    for row, column in np.ndindex(3, 3):
        place = slice(row, row + one.shape[0]), slice(column, column + one.shape[1])
        low = np.minimum(height, high[place])[one & padded[place]]
        found = max(found, low.max(initial=0.0))
    return found


def test_a_class_that_fills_the_image_is_one_object_whatever_takes_it_apart() -> None:
    full = np.ones((300, 400), bool)
    for method in ("components", "watershed", "learned"):
        ((place, crop),) = split(full, None, method, shape=ObjectShape.of([disc(5)]))
        assert place == (slice(0, 300), slice(0, 400)) and crop.all()


def test_regions_join_unless_each_is_an_object_by_itself() -> None:
    shape = ObjectShape(5, math.log(100), 0.1, 0.95, 0.02)
    assert not shape.too_large(100, 200) and shape.too_large(200, 200)
    assert not shape.too_large(10, 5_000)  # a fragment of something large is no object
