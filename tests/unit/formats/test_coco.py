import contextlib
import io
import json

import numpy as np
import pytest
from pycocotools.coco import COCO

from kshot.errors import ImageReadError, MaskError
from kshot.formats import coco, kshot_run, png
from tests.support.files import prediction, square


def foreign(path):
    """The file as pycocotools itself reads it."""
    with contextlib.redirect_stdout(io.StringIO()):
        return COCO(str(path))


def record(name, labels, status="done", score=0.75):
    return {
        "input": name,
        "size_hw": list(labels.shape),
        "status": status,
        "mask": f"masks/{name.rsplit('.', 1)[0]}.png",
        "classes": {c: {"present": 0.9, "pixels": 1, "score": score} for c in ("cat", "dog")},
    }


def of_run(out, records, classes):
    """coco.json as a run writes it at its end."""
    return coco.FORMAT.write_annotations(kshot_run.annotations_of_run(out, records, classes), out)


def run_folder(out):
    """Three images in a run folder: both classes, the second class in two parts with 255, and nothing."""
    both = square(1, (7, 9))
    both[5:, 6:] = 2
    parts = np.zeros((5, 4), np.uint8)
    parts[0], parts[4], parts[2] = 2, 2, 255
    masks = {"b.jpg": both, "sub/a.jpg": parts, "c.jpg": np.zeros((3, 3), np.uint8)}
    for name, labels in masks.items():
        png.save_labels(labels, out / record(name, labels)["mask"])
    return masks, [record(name, labels, "done" if labels.any() else "empty") for name, labels in masks.items()]


def test_pycocotools_reads_back_every_mask_of_a_folder(tmp_path):
    masks, records = run_folder(tmp_path)
    failed = {"input": "z.jpg", "size_hw": [1, 1], "status": "failed", "classes": {}}
    path = of_run(tmp_path, [*records, failed], ("cat", "dog"))
    assert path == tmp_path / "coco.json"
    read = foreign(path)
    assert [c["name"] for c in read.loadCats([1, 2])] == ["cat", "dog"]
    assert [image["file_name"] for image in read.imgs.values()] == ["b.jpg", "c.jpg", "sub/a.jpg"]
    for image in read.imgs.values():
        expected = masks[image["file_name"]]
        assert (image["height"], image["width"]) == expected.shape
        again = np.zeros_like(expected)
        for annotation in read.imgToAnns[image["id"]]:
            again[read.annToMask(annotation) > 0] = annotation["category_id"]
        np.testing.assert_array_equal(again, np.where(expected == 255, 0, expected))


def test_an_annotation_has_the_area_box_and_score_counted_by_hand(tmp_path):
    _, records = run_folder(tmp_path)
    read = foreign(of_run(tmp_path, records, ("cat", "dog")))
    cat, *dogs = read.anns.values()
    assert (cat["area"], cat["bbox"], cat["iscrowd"], cat["score"]) == (9, [2.0, 1.0, 3.0, 3.0], 0, 0.75)
    assert [(dog["area"], dog["bbox"]) for dog in dogs] == [(6, [6.0, 5.0, 3.0, 2.0]), (8, [0.0, 0.0, 4.0, 5.0])]
    assert list(read.anns) == [1, 2, 3]


def test_any_order_of_the_records_gives_the_same_bytes(tmp_path):
    _, records = run_folder(tmp_path)
    first = of_run(tmp_path, records, ("cat", "dog")).read_bytes()
    assert of_run(tmp_path, iter(records[::-1]), ("cat", "dog")).read_bytes() == first


def test_the_last_record_of_an_input_holds(tmp_path):
    _, records = run_folder(tmp_path)
    once = of_run(tmp_path, records, ("cat", "dog")).read_bytes()
    earlier = [{**r, "status": "failed"} for r in records]
    assert of_run(tmp_path, earlier + records, ("cat", "dog")).read_bytes() == once
    assert foreign(of_run(tmp_path, records + earlier, ("cat", "dog"))).imgs == {}


def test_a_folder_without_any_object_is_still_a_file_that_opens(tmp_path):
    read = foreign(of_run(tmp_path, [], ("cat",)))
    assert (read.imgs, read.anns, list(read.cats)) == ({}, {}, [1])


def test_a_mask_that_does_not_fit_its_record_is_refused_by_its_name(tmp_path):
    labels = square(3)
    png.save_labels(labels, tmp_path / "masks/a.png")
    with pytest.raises(MaskError, match=r"a\.png: holds the label 3"):
        of_run(tmp_path, [record("a.jpg", labels)], ("cat", "dog"))
    with pytest.raises(MaskError, match=r"a\.png is 8 x 6 pixels"):
        of_run(tmp_path, [record("a.jpg", np.zeros((9, 9), np.uint8))], ("cat", "dog"))
    with pytest.raises(ImageReadError, match=r"b\.png: no such file"):
        of_run(tmp_path, [record("b.jpg", labels)], ("cat", "dog"))
    assert not (tmp_path / "coco.json").exists()


def test_one_prediction_is_a_file_of_its_own(tmp_path):
    found = prediction(square(2), ("cat", "löwe"))
    found.save(tmp_path / "photo.json")
    read = foreign(tmp_path / "photo.json")
    assert read.imgs[1]["file_name"] == "photo"
    np.testing.assert_array_equal(read.annToMask(read.anns[1]), square(1))
    assert read.anns[1]["category_id"] == 2 and read.cats[2]["name"] == "löwe"
    assert read.anns[1]["score"] == pytest.approx(0.8)
    assert json.loads((tmp_path / "photo.json").read_bytes())["licenses"] == []


def test_nothing_is_printed(tmp_path, capsys):
    _, records = run_folder(tmp_path)
    of_run(tmp_path, records, ("cat", "dog"))
    coco.FORMAT.read_shots(tmp_path / "masks")
    assert capsys.readouterr() == ("", "")
