"""Which images are frames of one film, and which objects are the same from frame to frame."""

import numpy as np

from kshot.annotations.films import films_of, tracked
from kshot.annotations.model import Annotation, AnnotationSet, LabelledImage


def box(left: int, top: int = 2, label: str = "cell", side: int = 6) -> Annotation:
    mask = np.zeros((20, 60), bool)
    mask[top : top + side, left : left + side] = True
    return Annotation.from_mask(mask, label)


def test_objects_keep_their_numbers_though_their_order_changes() -> None:
    frames = [[box(2), box(20)], [box(22), box(4)], [box(6), box(24), box(40)]]
    assert list(tracked(frames)) == [[1, 2], [2, 1], [1, 2, 3]]


def test_the_sum_of_overlaps_decides_and_not_the_first_that_fits() -> None:
    # The left one overlaps both, the right one only the second: greedy matching would lose one.
    frames = [[box(10), box(14, top=5)], [box(13, top=3), box(8)]]
    assert list(tracked(frames)) == [[1, 2], [2, 1]]


def test_classes_are_kept_apart_and_hidden_objects_come_back() -> None:
    hidden = [[box(2)], *[[]] * 5, [box(3)]]
    assert list(tracked(hidden))[-1] == [1]
    assert list(tracked([[box(2)], *[[]] * 6, [box(3)]]))[-1] == [2]
    assert list(tracked([[box(2)], [box(2, label="nucleus")]])) == [[1], [2]]


def test_frames_of_other_sizes_and_ignored_pixels_have_no_numbers() -> None:
    other = Annotation.from_mask(np.ones((9, 9), bool), "cell")
    ignored = Annotation.from_mask(box(2).mask, "", ignore=True)
    assert list(tracked([[box(2)], [other], [ignored]])) == [[1], [2], [0]]


def test_frames_pages_and_folders_make_films() -> None:
    names = ["a.mp4#000000", "a.mp4#000010", "z.tif#page0001", "z.tif#page0002", "s/1.png", "s/2.png"]
    stems = ["a/000000", "a/000010", "z/page0001", "z/page0002", "s/1", "s/2"]
    images = [LabelledImage(name, (4, 4), stem=stem) for name, stem in zip(names, stems, strict=True)]
    found = {film.stem: [film.number(place) for place in (0, 1)] for film in films_of(AnnotationSet(("x",), images))}
    assert found == {"a": [0, 10], "z": [0, 1], "s": [0, 1]}
