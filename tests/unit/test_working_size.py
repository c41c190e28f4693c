"""The rule by which a working size is chosen, on IoUs that the test decides."""

import numpy as np
import pytest

from kshot.working_size import (
    MOST_IMAGES,
    MOST_LEFT_OUT,
    SizeChoice,
    candidate_sizes,
    choose_size,
    images_to_leave_out,
    images_to_try,
)

SIZES = (432, 640, 864)


def chosen(*ious: list[int]) -> tuple[SizeChoice, list[int]]:
    """The choice where each size gives these IoUs in percent, a left-out image each, and the sizes that were asked."""
    asked: list[int] = []

    def predict(size: int, index: int) -> np.ndarray:
        asked.append(size)
        found = np.zeros((10, 10), np.uint8)
        found.flat[: ious[SIZES.index(size)][index]] = 1
        return found

    areas = np.arange(len(ious[0]), 0, -1, dtype=float)[:, None]
    choice = choose_size(SIZES, areas, lambda index: np.ones((10, 10), np.uint8), predict)
    return choice, sorted(set(asked))


@pytest.mark.parametrize(
    ("size", "patch", "expected"),
    [(432, 16, SIZES), (448, 14, (448, 672, 896)), (512, 16, (512, 768, 1024)), (448, 8, (448,))],
)
def test_sizes_are_whole_patches_and_no_more_than_4096_of_them(
    size: int, patch: int, expected: tuple[int, ...]
) -> None:
    assert candidate_sizes(size, patch) == expected


def test_a_larger_size_is_taken_when_it_gains_more_than_the_standard_error() -> None:
    # Gains of 4, 8 and 12 points: mean 8, standard deviation 4, standard error 4 / sqrt(3) = 2.3.
    choice, _ = chosen([20, 20, 20], [24, 28, 32], [24, 28, 32])
    assert choice.size == 640
    assert choice.ious[432] == (0.2, 0.2, 0.2) and choice.ious[640] == (0.24, 0.28, 0.32)


def test_a_gain_within_the_standard_error_is_none() -> None:
    # Gains of 30, -10 and -8 points: mean 4, standard deviation 22.5, standard error 13.
    choice, asked = chosen([20, 20, 20], [50, 10, 12], [20, 20, 20])
    assert choice.size == 432
    assert asked == [432, 640, 864]  # it gained on average, so the next was tried


def test_no_larger_size_is_tried_where_one_does_not_gain() -> None:
    choice, asked = chosen([20, 20], [20, 20], [90, 90])
    assert choice.size == 432 and asked == [432, 640] and set(choice.ious) == {432, 640}


def test_the_largest_has_to_be_better_than_the_one_before() -> None:
    assert chosen([20, 20], [40, 44], [41, 42])[0].size == 640
    assert chosen([20, 20], [40, 44], [50, 56])[0].size == 864


def test_one_image_decides_nothing() -> None:
    choice, asked = chosen([20], [90], [90])
    assert choice.size == 432 and asked == [] and not choice.ious
    assert "two supports with masks" in str(choice)


def test_ignored_pixels_do_not_count() -> None:
    truth = np.ones((10, 10), np.uint8)
    truth[5:] = 255
    found = {432: np.ones((10, 10), np.uint8), 640: np.ones((10, 10), np.uint8)}
    found[640][:5, 5:] = 0
    choice = choose_size((432, 640), np.ones((2, 1)), lambda _: truth, lambda size, _: found[size])
    assert choice.ious == {432: (1.0, 1.0), 640: (0.5, 0.5)}


def test_few_images_are_looked_at_however_many_there_are() -> None:
    areas = np.zeros((1000, 30))
    areas[np.arange(1000), np.arange(1000) % 30] = 1 + np.arange(1000)
    tried = images_to_try(areas)
    assert len(tried) == MOST_IMAGES
    assert len(images_to_leave_out(areas[list(tried)])) == MOST_LEFT_OUT


def test_images_of_all_sizes_are_left_out() -> None:
    assert images_to_leave_out(np.arange(1.0, 11)[:, None]) == (8, 6, 4, 2, 0)


def test_an_image_that_alone_shows_a_class_is_not_left_out() -> None:
    areas = np.array([[5.0, 1.0], [4.0, 0.0], [3.0, 0.0], [0.0, 0.0]])
    assert images_to_try(areas) == (0, 1, 2)
    assert images_to_leave_out(areas) == (1, 2)


def test_a_choice_survives_a_file() -> None:
    choice, _ = chosen([20, 20], [40, 44], [41, 42])
    assert SizeChoice.from_dict(choice.to_dict()) == choice
