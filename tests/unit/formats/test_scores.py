import numpy as np
import pytest

from kshot.errors import InputError
from kshot.formats import scores
from kshot.types import Prediction
from tests.support.files import prediction, square


def test_the_file_holds_sixteen_bit_scores_that_plain_numpy_reads(tmp_path):
    scores.FORMAT.write(prediction(square(), ("cat", "dog")), tmp_path / "x.npz")
    with np.load(tmp_path / "x.npz", allow_pickle=False) as saved:
        assert saved["scores"].dtype == np.uint16
        assert saved["scores"][:, 1, 2].tolist() == [6554, 52428, 6554]  # 0.1, 0.8 and 0.1 of 65535
        assert saved["classes"].tolist() == ["cat", "dog"]
        assert saved["present"].tolist() == [0.9, 0.9]


def test_names_and_presences_come_back_in_order(tmp_path):
    found = Prediction(
        np.zeros((1, 1), np.uint8),
        np.array([[[1.0]], [[0.0]], [[0.0]]], np.float32),
        {"zebra": 1 / 3, "löwe 🦁": 0.0},
        ("löwe 🦁", "zebra"),
    )
    scores.FORMAT.write(found, tmp_path / "x.npz")
    restored, classes, present = scores.read(tmp_path / "x.npz")
    assert classes == ("löwe 🦁", "zebra")
    assert present == {"löwe 🦁": 0.0, "zebra": 1 / 3}
    assert restored.ravel().tolist() == [1.0, 0.0, 0.0]


def test_the_same_prediction_gives_the_same_bytes(tmp_path):
    for name in ("a.npz", "b.npz"):
        scores.FORMAT.write(prediction(square(), ("cat",)), tmp_path / name)
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()


def damaged(path, what):
    if what == "truncated":
        scores.FORMAT.write(prediction(square(), ("cat",)), path)
        path.write_bytes(path.read_bytes()[:200])
    elif what == "text":
        path.write_text("no scores")
    elif what == "empty":
        path.touch()
    elif what == "one array":
        with path.open("wb") as file:
            np.save(file, np.zeros(3))
    elif what == "other arrays":
        np.savez(path, x=np.zeros(3))
    elif what == "pickle":
        np.savez(path, scores=np.array([object()]), classes=np.array(["a"]), present=np.array([1.0]))
    elif what == "other shapes":
        np.savez(path, scores=np.zeros((2, 2, 2), np.uint16), classes=np.array(["a", "b"]), present=np.array(1.0))
    return path


@pytest.mark.parametrize(
    "what", ["truncated", "text", "empty", "one array", "other arrays", "pickle", "other shapes", "missing"]
)
def test_a_file_that_is_no_score_map_is_refused_by_its_name(what, tmp_path):
    with pytest.raises(InputError, match=r"x\.npz"):
        scores.read(damaged(tmp_path / "x.npz", what))
