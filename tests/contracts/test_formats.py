"""What every annotation format promises; a made-up one fulfils it with a file that nothing else knows."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import kshot.formats
from kshot import _plugins
from kshot.cli import parsing
from kshot.errors import OutputError
from kshot.formats import base
from kshot.formats.base import (
    AnnotationReader,
    AnnotationWriter,
    Format,
    ImageWriter,
    PredictionWriter,
    RowWriter,
    SupportReader,
    load_format,
)
from tests.support import made_up
from tests.support.annotation_sets import annotation_set, masks
from tests.support.commands import run
from tests.support.files import prediction, square, text

MADE_UP = "pixel_lists"
ROLES = (SupportReader, AnnotationWriter, PredictionWriter, RowWriter)


@pytest.fixture(autouse=True)
def _made_up_format(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """`made_up/` as one more place where formats lie."""
    monkeypatch.setattr(kshot.formats, "__path__", [*kshot.formats.__path__, *made_up.__path__])
    monkeypatch.setattr(kshot.formats.__spec__, "submodule_search_locations", kshot.formats.__path__)
    base.all_formats.cache_clear()
    yield
    base.all_formats.cache_clear()


def named(*kinds: type) -> list[str]:
    """The formats, without the made-up one, that are all of these kinds."""
    return [one.name for one in base.all_formats() if all(isinstance(one, kind) for kind in kinds)]


@pytest.fixture(params=[*named(), MADE_UP])
def format_(request: pytest.FixtureRequest) -> Format:
    return load_format(request.param)


def test_a_format_says_what_it_can_do(format_: Format) -> None:
    assert format_.name in _plugins.names("formats") and isinstance(format_, ROLES)
    assert type(format_).__doc__ and type(format_).__doc__ != Format.__doc__
    if isinstance(format_, SupportReader):
        assert ": " in format_.layout and "\n" not in format_.layout
    if isinstance(format_, AnnotationWriter):
        assert format_.output is None or Path(format_.output).name == format_.output
    if isinstance(format_, PredictionWriter):
        assert all(suffix.startswith(".") and suffix == suffix.lower() for suffix in format_.suffixes)
    if isinstance(format_, ImageWriter | RowWriter):
        assert format_.path_of("a/b").rpartition(".")[0].endswith("/a/b")


def test_formats_of_one_kind_have_places_and_layouts_of_their_own() -> None:
    writers = [one for one in base.all_formats() if isinstance(one, AnnotationWriter) and one.output]
    folders = [one.folder for one in base.all_formats() if isinstance(one, ImageWriter)]
    places = [one.output for one in writers] + folders
    titles = [reader.title for reader in base.readers()]
    assert len(places) == len(set(places)) and len(titles) == len(set(titles))


def test_the_command_line_knows_what_is_written_without_importing_it() -> None:
    written = [one for one in base.all_formats() if isinstance(one, ImageWriter | AnnotationWriter)]
    listed = [one.name.replace("_", "-") for one in written if isinstance(one, ImageWriter) or one.output]
    assert ", ".join(name for name in listed if name != "pixel-lists") == parsing.WRITTEN
    converted = [one.name.replace("_", "-") for one in written if isinstance(one, AnnotationWriter) and one.output]
    assert ", ".join(["png", *(name for name in converted if name != "pixel-lists")]) == parsing.CONVERTED


def test_another_layout_is_none_of_its_business(format_: Format, tmp_path: Path) -> None:
    text(tmp_path / "notes.txt", "nothing of interest")
    text(tmp_path / "list.json", [1, 2])
    if isinstance(format_, SupportReader):
        assert format_.read_shots(tmp_path) is None
    if isinstance(format_, AnnotationReader):
        assert format_.read_annotations(tmp_path) is None


@pytest.mark.parametrize("name", [*named(AnnotationReader, AnnotationWriter), MADE_UP])
def test_labels_come_back_as_they_were_written(name: str, tmp_path: Path) -> None:
    format_ = load_format(name)
    assert isinstance(format_, AnnotationReader) and isinstance(format_, AnnotationWriter)
    labels = square(2)
    labels[0, :3] = 1
    written = annotation_set(tmp_path / "images", {"a.png": labels, "b.png": np.zeros_like(labels)}, ("one", "two"))
    path = format_.write_annotations(written, tmp_path / "out")
    read = format_.read_annotations(path, tmp_path / "images")
    assert read is not None
    found = masks(read, ("one", "two"))
    np.testing.assert_array_equal(found["a"], labels)
    assert not found["b"].any()
    assert {image.found.resolve() for image in read.images} == {tmp_path / "images/a.png", tmp_path / "images/b.png"}
    assert (tmp_path / "out" / (format_.output or "")).exists()


@pytest.mark.parametrize("name", named(PredictionWriter))
def test_a_prediction_gives_the_same_bytes_each_time(name: str, tmp_path: Path) -> None:
    format_ = load_format(name)
    assert isinstance(format_, PredictionWriter)
    found = prediction(square(), ("cat", "dog"))
    paths = [tmp_path / folder / f"x{format_.suffixes[0]}" for folder in ("first", "second")]
    for path in paths:
        format_.write(found, path)
    assert paths[0].read_bytes() == paths[1].read_bytes()
    assert {path for path in tmp_path.rglob("*") if path.is_file()} == set(paths)


def test_a_new_file_is_a_format_of_every_command(tmp_path: Path) -> None:
    labels = annotation_set(tmp_path / "images", {"a.png": square(1)}, ("cat",))
    path = load_format("coco").write_annotations(labels, tmp_path)
    run("convert", path, "--to", "pixel-lists", "-o", tmp_path / "out")
    shutil.copytree(tmp_path / "images", tmp_path / "out" / "images")
    assert base.read_support(tmp_path / "out").source.startswith("pixel lists in ")
    run("convert", tmp_path / "out" / "pixels.json", "--to", "coco", "-o", tmp_path / "back")
    (image,) = base.read_labels(tmp_path / "back")[0].images
    np.testing.assert_array_equal(image.labels(("cat",)), square(1))


@pytest.mark.parametrize("name", ["#a", "a b", "a:b", "a,b", "x\u2028y", "x\ny", "=1+1", "_background_", "__ignore__"])
@pytest.mark.parametrize("tool", ["coco", "cvat", "label_studio", "labelme", "voc", "yolo"])
def test_class_names_are_data(tmp_path: Path, tool: str, name: str) -> None:
    """A name comes back as it was, or is refused by name when it is written: it is never another one."""
    labels = annotation_set(tmp_path / "images", {"a.png": square(1)}, (name,))
    form = load_format(tool)
    try:
        path = form.write_annotations(labels, tmp_path / "out")
    except OutputError as error:
        assert repr(name) in str(error)
        return
    (image,) = form.read_annotations(path, tmp_path / "images").images
    assert [annotation.label for annotation in image.annotations] == [name]
