"""The how-to's snippets for FiftyOne: its label classes, and a data set where its database runs."""

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import kshot
from tests.support.drawing import draw

PAGE = Path(__file__).resolve().parents[2] / "docs" / "how_to" / "other_programs.md"


def snippet(needs: str) -> str:
    (found,) = re.findall(rf"^```python\n# needs {needs}\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.M | re.S)
    return found


@pytest.fixture
def names(toy: kshot.Segmenter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, object]:
    """What the first snippet defines, and the segmenter, task and images that the page speaks of."""
    monkeypatch.setenv("FIFTYONE_DO_NOT_TRACK", "true")
    monkeypatch.setenv("HOME", str(tmp_path))  # where its database would lie
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("warnings.filters", [])
        pytest.importorskip("fiftyone")
    monkeypatch.chdir(tmp_path)
    Path("images").mkdir()
    picture, mask = draw(3, (120, 160))
    for name, seed in (("a", 3), ("b", 4)):
        Image.fromarray(draw(seed, (120, 160))[0]).save(f"images/{name}.jpg")
    found: dict[str, object] = {"kshot": kshot, "seg": toy}
    found["task"] = toy.fit([kshot.Shot(picture, mask=mask, label="cat")])
    exec(compile(snippet("fiftyone"), str(PAGE), "exec"), found)
    return found


def test_detections_are_the_objects_of_a_prediction(names: dict, toy: kshot.Segmenter) -> None:
    pred = toy.predict(names["task"], draw(3, (120, 160))[0])
    found = names["labels_of"](pred).detections
    assert len(found) == len(pred.instances()) > 0
    whole = np.zeros(pred.size_hw, bool)
    for one, ours in zip(found, pred.instances(), strict=True):
        assert (one.label, one.confidence) == ("cat", ours.score)
        painted = one.to_segmentation(frame_size=(160, 120)).mask > 0  # as FiftyOne places a mask in its box
        assert np.array_equal(painted, ours.mask)
        whole |= painted
    assert np.array_equal(whole, pred.mask == 1)


def test_a_field_of_segmentations_is_a_support(names: dict, toy: kshot.Segmenter) -> None:
    fo, mask = names["fo"], draw(3, (120, 160))[1].astype(np.uint8)
    sample = fo.Sample(filepath="images/a.jpg", painted=fo.Segmentation(mask=mask))
    shot = names["shot_of"](sample, "painted", {1: "cat"})
    assert toy.predict(toy.fit([shot]), "images/a.jpg").classes == ("cat",)


def test_predictions_become_fields_of_a_data_set(names: dict) -> None:
    fo = names["fo"]
    try:
        fo.list_datasets()
    except fo.core.config.FiftyOneConfigError as error:
        pytest.skip(f"FiftyOne's database (MongoDB) does not run here: {error}")
    exec(compile(snippet("fiftyone and its database"), str(PAGE), "exec"), names)
    samples = list(names["view"])
    assert len(samples) == 2 and all(sample["kshot"].detections for sample in samples)
    assert samples[0]["uncertainty"] >= samples[1]["uncertainty"]
    assert samples[0]["kshot_mask"].mask.shape == (120, 160)
