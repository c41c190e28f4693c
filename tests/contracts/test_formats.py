"""What every annotation format promises; a made-up one fulfils it with a file that nothing else knows."""

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import kshot.formats
from kshot import _plugins
from kshot.annotations.model import Annotation, AnnotationSet
from kshot.cli import parsing
from kshot.errors import KshotError, OutputError
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


@pytest.mark.parametrize("name", [*named(AnnotationReader, AnnotationWriter), MADE_UP])
def test_two_objects_of_one_class_come_back(name: str, tmp_path: Path) -> None:
    """As two where the format says that it knows objects; in any case all pixels, and never those of one alone."""
    format_ = load_format(name)
    assert isinstance(format_, AnnotationReader) and isinstance(format_, AnnotationWriter)
    apart = [np.roll(square(1), shift, axis=1) for shift in (-2, 2)]
    whole = annotation_set(tmp_path / "images", {"a.png": apart[0] | apart[1]}, ("one",))
    (image,) = whole.images
    objects = tuple(Annotation.from_mask(mask, "one") for mask in apart)
    written = AnnotationSet(("one",), [replace(image, annotations=objects)], objects=True)
    read = format_.read_annotations(format_.write_annotations(written, tmp_path / "out"), tmp_path / "images")
    assert read is not None
    (back,) = read.images
    np.testing.assert_array_equal(back.labels(("one",)), apart[0] | apart[1])
    assert len(back.annotations) == 2 or not read.objects


@pytest.mark.parametrize("damage", [b"", b"\xff\xfe", b"[]", b"{}", b"null", b"[" * 10_000, b'{"a": 1e999}', None])
@pytest.mark.parametrize("name", [*named(AnnotationReader, AnnotationWriter), MADE_UP])
def test_damaged_files_give_errors_of_kshot_alone(name: str, damage: bytes | None, tmp_path: Path) -> None:
    """Whatever stands in any one of its files; None: its own bytes, cut in the middle."""
    format_ = load_format(name)
    assert isinstance(format_, AnnotationReader) and isinstance(format_, AnnotationWriter)
    labels = square(2)
    labels[0, :3] = 1
    written = annotation_set(tmp_path / "images", {"a.png": labels, "b.png": labels}, ("one", "two"))
    place = format_.write_annotations(written, tmp_path / "out")
    refused = 0
    for path in sorted((tmp_path / "out").rglob("*")):
        if path.is_file() and not path.is_symlink():
            whole = path.read_bytes()
            path.write_bytes(whole[: len(whole) // 2] if damage is None else damage)
            try:
                read = format_.read_annotations(place, tmp_path / "images")
                refused += read is None or len(list(read.images)) < 2 or bool(read.skipped.failures)
            except KshotError as error:
                assert str(error).strip()
                refused += 1
            path.write_bytes(whole)
    assert refused


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


ODD_NAMES = ["#a", "a b", "a:b", "a,b", "x\u2028y", "x\ny", "=1+1", " a", "a ", "_background_", "__ignore__"]


@pytest.mark.parametrize("name", ODD_NAMES)
@pytest.mark.parametrize("tool", named(AnnotationReader, AnnotationWriter))
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
