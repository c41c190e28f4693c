"""Nothing is written outside the folder of results, whatever names say."""

import json
from contextlib import suppress
from pathlib import Path

import pytest

import kshot
from kshot.annotations.model import DEFAULT_EXPORT, Annotation, AnnotationSet, LabelledImage
from kshot.batch import label_folder, read_manifest
from kshot.errors import OutputError
from kshot.formats.base import AnnotationWriter, all_formats, read_labels
from kshot.io.jsonl import LineWriter
from kshot.io.names import below
from kshot.types import Shot
from tests.support.files import picture, square, text

EVIL = (
    "../evil.jpg",
    "a/../../evil.jpg",
    "/{root}/evil.jpg",
    "C:\\evil.jpg",
    "..\\..\\evil.jpg",
    "a\0.jpg",
    "",
    ".",
    "..",
)


def outside(root: Path) -> set[str]:
    """Files of a folder that lie not in its out/."""
    return {p.relative_to(root).as_posix() for p in root.rglob("*") if p.is_file() and root / "out" not in p.parents}


@pytest.mark.parametrize("name", ["../a.png", "b/../../a.png", "/a.png", "a\0.png", "."])
def test_a_path_that_leads_out_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(OutputError, match="leads out"):
        below(tmp_path / "out", tmp_path / "out" / name)
    assert below(tmp_path / "out", tmp_path / "out/a/b.png") == tmp_path / "out/a/b.png"


def test_a_link_on_the_way_that_leads_out_is_refused_and_one_that_stays_is_not(tmp_path: Path) -> None:
    (tmp_path / "out/real").mkdir(parents=True)
    (tmp_path / "out/away").symlink_to(tmp_path)
    (tmp_path / "out/near").symlink_to(tmp_path / "out/real")
    (tmp_path / "moved").symlink_to(tmp_path / "out")
    with pytest.raises(OutputError, match="leads out"):
        below(tmp_path / "out", tmp_path / "out/away/a.png")
    assert below(tmp_path / "out", tmp_path / "out/near/a.png") and below(tmp_path / "moved", tmp_path / "moved/a.png")


@pytest.mark.parametrize(
    "writer", [one for one in all_formats() if isinstance(one, AnnotationWriter)], ids=lambda w: w.name
)
@pytest.mark.parametrize("name", EVIL)
def test_names_in_annotation_files_lead_no_writer_out(tmp_path: Path, writer: AnnotationWriter, name: str) -> None:
    name = name.format(root=tmp_path)
    picture(tmp_path / "images/evil.jpg")
    entry = {"id": 1, "file_name": name, "height": 6, "width": 8}
    box = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 1, 3, 3], "segmentation": [[1, 1, 4, 1, 4, 4, 1, 4]]}
    labels = text(
        tmp_path / "labels.json",
        {"images": [entry], "annotations": [box], "categories": [{"id": 1, "name": "cat"}]},
    )
    before = outside(tmp_path)
    found, _ = read_labels(labels, tmp_path / "images")
    with suppress(OutputError):  # XML cannot hold every name
        writer.write_annotations(found, tmp_path / "out", DEFAULT_EXPORT)
    assert outside(tmp_path) == before


@pytest.mark.parametrize("format", ["voc", "yolo", "labelme", "index_masks"])
def test_a_stem_that_leads_out_is_refused_by_the_writer(tmp_path: Path, format: str) -> None:
    from kshot.formats.base import load_format

    image = LabelledImage(
        "a.jpg", (6, 8), (Annotation.from_mask(square(), "cat"),), picture(tmp_path / "a.jpg"), "../../a"
    )
    before, writer = outside(tmp_path), load_format(format)
    assert isinstance(writer, AnnotationWriter)
    with pytest.raises(OutputError, match="leads out"):
        writer.write_annotations(AnnotationSet(("cat",), [image]), tmp_path / "out", DEFAULT_EXPORT)
    assert outside(tmp_path) == before


@pytest.mark.parametrize("key", ["input", "mask", "outputs"])
@pytest.mark.parametrize("path", ["../evil.png", "/tmp/evil.png", "a\0", ""])
def test_a_manifest_that_leads_out_counts_as_damaged(
    toy: kshot.Segmenter, shots: list[Shot], image_folder: Path, tmp_path: Path, key: str, path: str
) -> None:
    task, out = toy.fit(shots), tmp_path / "out"
    label_folder(toy, task, image_folder, out)
    before, first = outside(tmp_path), read_manifest(out)
    damaged = [dict(record) for record in first]
    damaged[0][key] = {"png": path} if key == "outputs" else path
    (out / "manifest.jsonl").write_text("".join(json.dumps(record) + "\n" for record in damaged))
    assert len(read_manifest(out)) == len(first) - 1
    assert label_folder(toy, task, image_folder, out, resume=True).processed == 1
    assert read_manifest(out) == first and outside(tmp_path) == before


def test_a_link_in_the_place_of_a_format_ends_the_run(
    toy: kshot.Segmenter, shots: list[Shot], image_folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "out/masks").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OutputError, match="leads out"):
        label_folder(toy, toy.fit(shots), image_folder, tmp_path / "out")
    assert not list((tmp_path / "elsewhere").iterdir())


def test_a_link_is_never_appended_to(tmp_path: Path) -> None:
    (tmp_path / "manifest.jsonl").symlink_to(text(tmp_path / "mine.txt", "mine"))
    with pytest.raises(OutputError, match="a link"):
        LineWriter(tmp_path / "manifest.jsonl")
    assert (tmp_path / "mine.txt").read_text() == "mine"
