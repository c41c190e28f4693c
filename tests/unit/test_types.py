"""Shot, SupportSet and Prediction: what they take, and what they say when they refuse."""

from pathlib import Path

import numpy as np
import pytest

from kshot.errors import MaskError, SettingError, ShapeError, SupportError
from kshot.types import Prediction, Shot, SupportSet

IMAGE = np.zeros((4, 6, 3), np.uint8)
MASK = np.ones((4, 6), bool)


def prediction(**changes: object) -> Prediction:
    scores = np.stack([np.full((4, 6), 0.25), np.full((4, 6), 0.75)]).astype(np.float32)
    facts = {"mask": np.ones((4, 6), np.uint8), "scores": scores, "present": {"dog": 0.9}, "classes": ("dog",)}
    return Prediction(**(facts | changes))


@pytest.mark.parametrize(
    ("arguments", "prompt"),
    [
        ({"mask": MASK}, "mask"),
        ({"boxes": [1, 1, 3, 3]}, "boxes"),
        ({"boxes": [[1, 1, 3, 3], [0, 0, 2, 2]]}, "boxes"),
        ({"points": [(1, 1)], "negative_points": [(3, 3)]}, "points"),
        ({"scribbles": [[(0, 0), (3, 3)]], "negative_scribbles": [[(5, 0), (5, 3)]]}, "scribbles"),
        ({}, "none"),
    ],
)
def test_each_kind_of_prompt(arguments: dict, prompt: str) -> None:
    shot = Shot(IMAGE, label="dog", **arguments)
    assert shot.prompt == prompt and shot.classes == ("dog",)


def test_text_stands_without_an_image() -> None:
    assert Shot(text="rust spot", label="rust").prompt == "text"


def test_one_mask_can_show_several_classes() -> None:
    assert Shot(IMAGE, mask=MASK.astype(np.uint8), label={1: "dog", 2: "cat"}).classes == ("dog", "cat")


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"image": IMAGE, "mask": np.ones((5, 6), bool)}, MaskError, "mask is 6 x 5 pixels and its image 6 x 4"),
        ({"image": IMAGE, "mask": MASK, "boxes": [0, 0, 2, 2]}, SupportError, "one kind of prompt, got mask and boxes"),
        ({"image": None}, SupportError, "needs an image"),
        ({"image": IMAGE, "text": "dog"}, SupportError, "a text shot has no image"),
        ({"image": IMAGE, "boxes": [3, 0, 1, 2]}, ShapeError, "x0 < x1"),
        ({"image": IMAGE, "boxes": [1, 2, 3]}, ShapeError, r"boxes as \(n, 4\)"),
        ({"image": IMAGE, "points": "here"}, ShapeError, r"points as \(n, 2\)"),
        ({"image": IMAGE, "points": [[np.nan, 1]]}, ShapeError, "finite"),
        ({"image": IMAGE, "negative_points": [[1, 1]]}, SupportError, "at least one positive"),
        ({"image": IMAGE, "mask": MASK, "label": " "}, SupportError, "expected a class name"),
        ({"image": IMAGE, "mask": MASK, "label": {0: "dog"}}, SupportError, "labels in 1..254"),
        ({"image": IMAGE, "mask": MASK, "label": {255: "dog"}}, SupportError, "255 is ignore"),
        ({"image": IMAGE, "points": [[1, 1]], "label": {1: "a", 2: "b"}}, SupportError, "only a mask can show several"),
    ],
)
def test_a_wrong_shot_is_refused(arguments: dict, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        Shot(**arguments)


def test_classes_come_in_the_order_of_appearance_or_as_asked() -> None:
    shots = [Shot(IMAGE, mask=MASK, label=name) for name in ("b", "a", "b")]
    assert SupportSet(shots).classes == ("b", "a")
    assert SupportSet(shots, classes=("a", "b")).classes == ("a", "b")
    assert len(SupportSet(shots)) == 3 and [shot.label for shot in SupportSet(shots)] == ["b", "a", "b"]


@pytest.mark.parametrize(
    ("shots", "classes", "message"),
    [
        ([], (), "no shot in a list of shots"),
        ([Shot(IMAGE, mask=MASK, label="dog")], ("dog", "cat"), "no shot shows cat"),
        (["dog.jpg"], (), "expected kshot.Shot, got str"),
        ([Shot(IMAGE, label=str(i)) for i in range(255)], (), "at most 254"),
    ],
)
def test_a_wrong_support_set_is_refused(shots: list, classes: tuple, message: str) -> None:
    with pytest.raises(SupportError, match=message):
        SupportSet(shots, classes=classes)


def test_from_paths_takes_images_without_masks() -> None:
    support = SupportSet.from_paths([("a.jpg", "a.png"), (Path("b.jpg"), None)], label="dog")
    assert [shot.prompt for shot in support] == ["mask", "none"] and support.classes == ("dog",)


def test_a_prediction_knows_its_areas() -> None:
    found = prediction()
    assert found.size_hw == (4, 6) and found.areas() == {"dog": 24} and found.mask_of("dog").all()
    with pytest.raises(MaskError, match="no class 'cat'"):
        found.mask_of("cat")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mask": np.ones((4, 6), np.int64)}, "uint8"),
        ({"scores": np.zeros((3, 4, 6), np.float32)}, r"scores of shape \(2, 4, 6\), got \(3, 4, 6\)"),
        ({"mask": np.full((4, 6), 2, np.uint8)}, r"labels in 0\.\.1, got 2"),
        ({"present": {}}, "a presence for each"),
        ({"image": np.zeros((4, 5, 3), np.uint8)}, r"image of shape \(4, 6, 3\), got \(4, 5, 3\)"),
    ],
)
def test_a_wrong_prediction_is_refused(changes: dict, message: str) -> None:
    with pytest.raises(ShapeError, match=message):
        prediction(**changes)


def test_the_decision_is_the_best_class_that_is_present() -> None:
    scores = np.array([[[0.2, 0.5, 0.1]], [[0.3, 0.2, 0.5]], [[0.5, 0.3, 0.4]]], np.float32)
    both = Prediction.from_scores(scores, ("a", "b"), {"a": 0.9, "b": 0.9})
    assert both.mask.tolist() == [[2, 0, 1]]
    only_a = Prediction.from_scores(scores, ("a", "b"), {"a": 0.9, "b": 0.1})
    assert only_a.mask.tolist() == [[1, 0, 1]]
    assert not Prediction.from_scores(scores, ("a", "b"), {"a": 0.0, "b": 0.1}).mask.any()
    assert Prediction.from_scores(scores, ("a", "b")).present == pytest.approx({"a": 0.5, "b": 0.5})


def test_uncertainty_is_one_minus_the_soft_iou() -> None:
    assert prediction().uncertainty == pytest.approx(0.25)
    sure = np.stack([np.zeros((4, 6)), np.ones((4, 6))]).astype(np.float32)
    assert prediction(scores=sure).uncertainty == pytest.approx(0)
    assert prediction(mask=np.zeros((4, 6), np.uint8), present={"dog": 0.3}).uncertainty == pytest.approx(0.3)


def test_save_follows_the_suffix(tmp_path: Path) -> None:
    found = prediction(image=IMAGE)
    for name in ("m.png", "o.jpg", "s.npz", "c.json"):
        assert found.save(tmp_path / name).stat().st_size > 0
    with pytest.raises(SettingError, match=r"no format writes \.xyz"):
        found.save(tmp_path / "m.xyz")
    with pytest.raises(SettingError, match="a name without suffix"):
        found.save(tmp_path / "mask")


def test_a_shot_may_show_none_of_the_classes_but_not_alone() -> None:
    nothing = Shot(IMAGE, mask=np.zeros(IMAGE.shape[:2], np.uint8), label={})
    assert nothing.classes == ()
    assert SupportSet([Shot(IMAGE, mask=MASK, label="a"), nothing]).classes == ("a",)
    with pytest.raises(SupportError, match="shows any class"):
        SupportSet([nothing])


def three_parts() -> Prediction:
    """Two classes: a of 8 pixels scored 0.9 and of 2 scored 0.6, b of 6 scored 0.5 where a has 0.4."""
    scores = np.zeros((3, 10, 10), np.float32)
    scores[0] = 1
    for rows, columns, values in (
        (slice(0, 2), slice(0, 4), (0.1, 0.9, 0.0)),
        (slice(9, 10), slice(0, 2), (0.3, 0.6, 0.1)),
        (slice(4, 6), slice(5, 8), (0.1, 0.4, 0.5)),
    ):
        scores[:, rows, columns] = np.array(values, np.float32)[:, None, None]
    return Prediction.from_scores(scores, ("a", "b"), {"a": 0.8, "b": 0.3}, presence_threshold=0.2)


@pytest.mark.parametrize(
    ("limits", "areas"),
    [
        ({}, {"a": 10, "b": 6}),
        ({"min_area": 3}, {"a": 8, "b": 6}),
        ({"min_area": 2}, {"a": 10, "b": 6}),
        ({"min_area": "7%"}, {"a": 8, "b": 0}),
        ({"min_score": 0.55}, {"a": 10, "b": 0}),
        ({"min_score": 0.7}, {"a": 8, "b": 0}),
        ({"min_presence": 0.5}, {"a": 16, "b": 0}),  # the pixels of b go to the next best
        ({"min_presence": 0.5, "min_score": 0.5}, {"a": 10, "b": 0}),
        ({"min_presence": 0.9}, {"a": 0, "b": 0}),
    ],
)
def test_thresholds_are_kept_on_the_scores(limits: dict, areas: dict[str, int]) -> None:
    prediction = three_parts()
    found = prediction.filtered(**limits)
    assert found.areas() == areas
    assert found.scores is prediction.scores and prediction.areas() == {"a": 10, "b": 6}


def test_a_low_min_presence_brings_back_what_the_method_left_out() -> None:
    whole = three_parts()
    strict = Prediction.from_scores(whole.scores, whole.classes, whole.present, presence_threshold=0.5)
    assert strict.areas()["b"] == 0 and strict.filtered(min_presence=0.1).areas() == whole.areas()


@pytest.mark.parametrize(
    "limits", [{"min_presence": 1.2}, {"min_score": -0.1}, {"min_area": "much"}, {"min_area": -1}, {"min_area": "200%"}]
)
def test_a_threshold_out_of_its_range_is_refused(limits: dict) -> None:
    with pytest.raises(SettingError, match=f"--{next(iter(limits)).replace('_', '-')}"):
        three_parts().filtered(**limits)
