"""Crops and pastes of supports."""

import numpy as np

from kshot.training.augment import copy_paste, crop_around
from tests.support.disc_episodes import disc


def test_cuts_hold_the_class_and_pastes_add_to_it() -> None:
    picture, mask = disc(3, "red")
    labels = mask.astype(np.uint8) * 2
    for seed in range(5):
        rng = np.random.default_rng(seed)
        cut, marks = crop_around(picture, labels, 2, rng)
        assert cut.shape[:2] == marks.shape and (marks == 2).any()
        more, marked = copy_paste(
            picture, labels, *disc(4, "blue")[:1], disc(4, "blue")[1].astype(np.uint8) * 2, 2, rng
        )
        assert (marked == 2).sum() >= mask.sum() and np.array_equal(marked[mask], labels[mask])
        changed = (more != picture).any(2)
        assert not changed[marked != 2].any() and labels.max() == 2
