"""Connected components, in one piece and in strips, are those of scikit-image."""

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter
from skimage.measure import label

from kshot.ops.components import StripComponents, connected_components


def spiral() -> NDArray[np.uint8]:
    """One line that turns inwards, whose rows know of each other late."""
    side = 41
    mask = np.zeros((side, side), np.uint8)
    for inset in range(0, side // 2, 4):
        mask[inset, max(inset - 4, 0) : side - inset] = 1
        mask[inset : side - inset, side - inset - 1] = 1
        mask[side - inset - 1, inset : side - inset] = 1
        mask[inset + 4 : side - inset, inset] = 1
    return mask


def label_maps() -> dict[str, NDArray[np.uint8]]:
    """Maps of several labels that touch."""
    rng = np.random.default_rng(0)
    planes = [gaussian_filter(rng.normal(size=(60, 70)), 3) for _ in range(4)]
    return {
        "noise": rng.integers(0, 3, (40, 31)).astype(np.uint8),
        "areas": np.argmax(planes, axis=0).astype(np.uint8),
        "spiral": spiral(),
        "nothing": np.zeros((5, 6), np.uint8),
        "all": np.full((5, 6), 255, np.uint8),
        "one column": np.array([[1], [1], [0], [2], [3]], np.uint8),
    }


@pytest.mark.parametrize("name", label_maps())
@pytest.mark.parametrize("rows", [1, 7, 100])
def test_components_of_strips_are_those_of_the_whole(name: str, rows: int) -> None:
    whole = label_maps()[name]
    scores = np.random.default_rng(1).random(whole.shape, np.float32)
    strips = [whole[top : top + rows] for top in range(0, len(whole), rows)]
    found = StripComponents()
    for strip, part in zip(strips, (scores[top : top + rows] for top in range(0, len(whole), rows)), strict=True):
        found.add(strip, part)
    table = found.join()
    expected = label(whole, background=0, connectivity=2)
    areas = np.bincount(expected.ravel())[1:]
    assert sorted(table.areas.tolist()) == sorted(areas.tolist())
    assert table.score_sums.sum() == pytest.approx(scores[whole > 0].sum(dtype=np.float64))
    # Without the small ones.
    kept = table.passing(5, 0.0)
    sieved = np.concatenate(list(found.sieve(strips, table, kept)))
    np.testing.assert_array_equal(sieved, np.where(np.append(0, areas)[expected] >= 5, whole, 0))


@pytest.mark.parametrize("name", label_maps())
@pytest.mark.parametrize("corners", [True, False])
def test_components_of_a_mask_are_those_of_scikit_image(name: str, corners: bool) -> None:
    mask = label_maps()[name] > 0
    expected = label(mask, connectivity=2 if corners else 1)
    found = list(connected_components(mask, corners=corners))
    assert len(found) == expected.max()
    for number, (place, inside) in enumerate(found, start=1):
        np.testing.assert_array_equal(inside, expected[place] == number)
        assert inside.sum() == (expected == number).sum()
