"""Damaged files of every kind: only kshot's own errors come out, soon, and within the memory of a small machine."""

import io
import itertools
import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from kshot.annotations.model import AnnotationSet, Export, split_into_instances
from kshot.annotations.shots import shots_of
from kshot.cli.config import read_config
from kshot.data.base import load_dataset
from kshot.errors import KshotError, SupportError
from kshot.evaluation import evaluate, load_result
from kshot.formats import base, coco, cvat, label_studio, labelme, voc, yolo
from kshot.formats.png import save_labels
from kshot.formats.scores import read as read_scores
from kshot.io.images import read_image, read_mask
from kshot.io.stems import unique_stems
from kshot.io.tensor_file import Learned, read_learned, read_task, write_learned, write_task
from kshot.report.run import read_run as read_report
from kshot.tasks import load_task
from tests.support.annotation_sets import annotation_set
from tests.support.disc_folders import make_discs
from tests.support.files import mask, picture, square, text
from tests.support.memory import at_most

LABELS = np.pad(np.full((4, 5), 1, np.uint8), 2)
LABELS[3, 4], LABELS[7:, 7:] = 0, 2
CASES = {"image": 240, "document": 120}
# Numbers and words that readers stumble over.
VALUES = [-1, 0, 1e308, float("nan"), 2**63, 10**30, -(10**9), "", "x", "\0", "../../a.png", "a" * 300, None, [], {}]
VALUES += [True, [[]], [None], {"a": []}, "/etc/passwd", "\ud800", 1e-300, 3.5, [[1, 2], [3]], ["1", 2], 255, 1 << 40]
VALUES += [float("inf"), False, "1", "é" * 9, {"": None}, [[[[[[1]]]]]], -0.0, [0] * 50, {"a": {"b": []}}, "a\n"]


def damaged(data: bytes, rng: np.random.Generator) -> bytes:
    """The same bytes cut off, with bytes or bits changed, a piece doubled, moved or taken out."""
    kind, at = rng.integers(5), int(rng.integers(len(data)))
    end = at + int(rng.integers(1, 40))
    if kind == 0:
        return data[:at]
    if kind == 1:
        return data[:at] + bytes(rng.integers(0, 256, end - at, np.uint8)) + data[end:]
    if kind == 2:
        return data[:at] + data[end:]
    if kind == 3:
        return data[:end] + data[at:end] * 3 + data[end:]
    changed = bytearray(data)
    for place in rng.integers(0, len(data), 8).tolist():
        changed[place] ^= 1 << int(rng.integers(8))
    return bytes(changed)


def places(value: object, path: tuple = ()) -> Iterator[tuple]:
    """Where the values of a document are."""
    yield path
    below = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, child in below:
        yield from places(child, (*path, key))


def with_value(document: object, path: tuple, value: object) -> object:
    """The document with another value in one place."""
    if not path:
        return value
    again = json.loads(json.dumps(document))
    at = again
    for key in path[:-1]:
        at = at[key]
    at[path[-1]] = value
    return again


def failed_labels(folder: Path) -> int:
    """How many items of all labels could not be read."""
    found, _ = base.read_labels(folder)
    list(found.images)
    return len(found.skipped.failures)


def refusals(folder: Path) -> int:
    """How many of two refuse a folder or items of it, as supports and as labels to convert, in kshot's own words."""
    refused = 0
    for read in (lambda place: base.read_support(place).failures, failed_labels):
        try:
            refused += bool(read(folder))
        except KshotError as error:
            assert str(error).strip()
            refused += 1
    return refused


@pytest.fixture(autouse=True)
def _little_memory() -> Iterator[None]:
    """A reader that believes a damaged size fails here, not on somebody's machine."""
    with at_most(3 << 30):
        yield


def encoded(kind: str, mode: str) -> bytes:
    pixels = np.random.default_rng(0).integers(0, 256, (17, 23, 3), np.uint8)
    packed = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(packed, format=kind)
    return packed.getvalue()


@pytest.mark.filterwarnings("ignore")  # Pillow warns of damaged tags and goes on
@pytest.mark.parametrize(
    ("kind", "mode"), [("PNG", "P"), ("PNG", "RGBA"), ("JPEG", "RGB"), ("TIFF", "RGB"), ("TIFF", "L")]
)
def test_damaged_images_are_refused_or_read(kind, mode):
    whole, rng = encoded(kind, mode), np.random.default_rng(1)
    for _ in range(CASES["image"]):
        data = damaged(whole, rng)
        for read in (read_image, read_mask):
            try:
                assert read(data, max_pixels=1_000_000).dtype == np.uint8
            except KshotError as error:
                assert str(error).strip()


READ_AND_WRITTEN = [
    one.name
    for one in base.all_formats()
    if isinstance(one, base.AnnotationReader) and isinstance(one, base.AnnotationWriter)
]
DOCUMENTS = {".json", ".xml", ".yaml", ".txt", ".jsonl", ".toml"}


def made(name: str, root: Path) -> Path:
    """A folder of one format with its images, every other time with polygons; returns what a reader is given."""
    labels = annotation_set(root / "images", {"a.png": LABELS, "b.png": LABELS.T.copy()}, ("one", "two"))
    writer = base.load_format(name)
    assert isinstance(writer, base.AnnotationWriter)
    written = writer.write_annotations(
        split_into_instances(labels, "components"), root, Export(polygons=root.name == "polygons")
    )
    folder = written if written.is_dir() else written.parent
    return folder if list(folder.rglob("*.png")) else root


def documents(folder: Path) -> list[Path]:
    """The files of text in a folder."""
    return sorted(path for path in folder.rglob("*") if path.suffix in DOCUMENTS and path.is_file())


def parsed(path: Path) -> list | None:
    """The values of a document, one a line of JSON lines; None of other text."""
    content = path.read_text(encoding="utf-8")
    if path.suffix == ".jsonl":
        return [json.loads(line) for line in content.splitlines()]
    return [yaml.safe_load(content)] if path.suffix in {".json", ".yaml"} else None


def packed(path: Path, values: list) -> bytes:
    """What `parsed` gives these values of."""
    if path.suffix == ".yaml":  # JSON would make words of the labels' numbers
        return yaml.safe_dump(values[0]).encode("utf-8", "replace")
    return "".join(json.dumps(value) + "\n" for value in values).encode("utf-8", "replace")


def damaged_one_by_one(folder: Path, cases: int, check: Callable[[], int], seed: int = 2) -> int:
    """Damage the documents of a folder by turns, bytes and values; returns how often that was refused."""
    rng, refused = np.random.default_rng(seed), 0
    paths = documents(folder)
    whole = {path: (path.read_bytes(), parsed(path)) for path in paths}
    every = {path: list(places(values)) for path, (_, values) in whole.items() if values is not None}
    assert check() == 0  # undamaged
    for case in range(cases):
        path = paths[case % len(paths)]
        data, values = whole[path]
        if values is None or case // len(paths) % 2:
            path.write_bytes(damaged(data, rng))
        else:
            place = every[path][int(rng.integers(len(every[path])))]
            path.write_bytes(packed(path, with_value(values, place or (0,), VALUES[int(rng.integers(len(VALUES)))])))
        refused += bool(check())
        path.write_bytes(data)
    return refused


@pytest.mark.parametrize("shapes", ["masks", "polygons"])
@pytest.mark.parametrize("name", READ_AND_WRITTEN)
def test_damaged_documents_are_refused_or_read(name, shapes, tmp_path):
    folder = made(name, tmp_path / shapes)
    assert damaged_one_by_one(folder, CASES["document"], lambda: refusals(folder))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("layout", ["cat", "voc", "index_masks"])
def test_damaged_masks_of_a_folder_are_refused_or_read(layout, tmp_path):
    if layout == "cat":
        folder = tmp_path
        for name in "ab":
            picture(tmp_path / "cat" / f"{name}.jpg", (9, 8))
            mask(tmp_path / "cat" / f"{name}.png", LABELS[:8].T > 0)
    else:
        folder = made(layout, tmp_path)
    path = folder / {"cat": "cat/a.png", "voc": "SegmentationClass/a.png", "index_masks": "masks/a.png"}[layout]
    whole, rng = path.read_bytes(), np.random.default_rng(5)
    assert refusals(folder) == 0  # undamaged
    refused = []
    for _ in range(CASES["document"]):
        path.write_bytes(damaged(whole, rng))
        refused.append(refusals(folder))
    assert any(refused)


def test_damaged_runs_are_refused_or_read(tmp_path):
    about = {name: {"present": 0.9, "pixels": 9, "regions": 1, "score": 0.8} for name in ("one", "two")}
    lines = []
    for name in "ab":
        picture(tmp_path / "in" / f"{name}.jpg", LABELS.shape)
        save_labels(LABELS, tmp_path / f"run/masks/{name}.png")
        record = {"input": f"{name}.jpg", "status": "done", "size_hw": list(LABELS.shape), "mask": f"masks/{name}.png"}
        lines.append(record | {"sha256": "0" * 64, "uncertainty": 0.1, "outputs": {}, "classes": about})
    text(tmp_path / "run/manifest.jsonl", "".join(json.dumps(line) + "\n" for line in lines))
    text(tmp_path / "run/settings.json", {"classes": ["one", "two"], "images": str(tmp_path / "in"), "task": "x"})

    def check() -> int:
        return refusals(tmp_path / "run") + refused(lambda: read_report(tmp_path / "run"))

    assert damaged_one_by_one(tmp_path / "run", 3 * CASES["document"], check)


def refused(read: Callable[[], object]) -> int:
    """Whether kshot refuses, in its own words."""
    try:
        read()
    except KshotError as error:
        assert str(error).strip()
        return 1
    return 0


def test_damaged_tasks_and_weights_are_refused_or_read(tmp_path):
    write_task(tmp_path / "a.kshot", {"method": "density", "classes": ["a"]}, {"x": torch.arange(6.0)})
    facts = {"method": "m", "identity": "i", "backbone": "b"}
    write_learned(tmp_path / "a.safetensors", Learned(facts, {"x": torch.arange(6.0)}))
    rng = np.random.default_rng(6)
    for path, reads in {"a.kshot": (read_task, load_task), "a.safetensors": (read_learned,)}.items():
        whole = (tmp_path / path).read_bytes()
        for case in range(2 * CASES["document"]):
            place = tmp_path / f"{case}{path}"
            place.write_bytes(damaged(whole, rng))
            for read in reads:
                assert place.read_bytes() == whole or refused(partial(read, place))


def test_a_damaged_kshot_toml_is_refused_or_read(tmp_path):
    whole = b'backbone = "tiny"\nmin_area = 3\n[label]\nformat = "png"\nset = ["a=1", "b=2"]\n[train]\nlr = 1e-3\n'
    options = {"label": ["backbone", "min_area", "format", "set"], "train": None}
    path, rng = tmp_path / "kshot.toml", np.random.default_rng(7)
    path.write_bytes(whole)
    assert not refused(lambda: read_config(path, options))
    failed = 0
    for _ in range(2 * CASES["document"]):
        path.write_bytes(damaged(whole, rng))
        failed += refused(lambda: read_config(path, options))
    assert failed
    path.write_text("x = " + "[" * 5000)
    assert refused(lambda: read_config(path, options))


def test_damaged_evaluations_are_refused_or_read(toy, tmp_path):
    evaluate(toy, load_dataset("folder", make_discs(tmp_path / "data", count=4)), episodes=3, out=tmp_path / "run")

    def check() -> int:
        return refused(lambda: load_result(tmp_path / "run").summary())

    assert damaged_one_by_one(tmp_path / "run", 3 * CASES["document"], check)


def test_damaged_support_yaml_and_score_maps(tmp_path):
    picture(tmp_path / "a.png")
    listed = "- {image: a.png, boxes: [[1, 1, 4, 4]], label: cat}\n- {image: a.png, points: [[2, 3]], label: x}\n"
    text(tmp_path / "support.yaml", listed)
    assert damaged_one_by_one(tmp_path, 2 * CASES["document"], lambda: refusals(tmp_path))
    np.savez_compressed(
        tmp_path / "x.npz", scores=np.zeros((2, 3, 3), np.uint16), classes=np.array(["a"]), present=[1.0]
    )
    whole, rng = (tmp_path / "x.npz").read_bytes(), np.random.default_rng(4)
    for _ in range(CASES["document"]):
        (tmp_path / "x.npz").write_bytes(damaged(whole, rng))
        try:
            read_scores(tmp_path / "x.npz")
        except KshotError as error:
            assert "x.npz" in str(error)


BOMB = '<?xml version="1.0"?><!DOCTYPE b [<!ENTITY a "aaaaaaaaaa">%s]><annotations>&i;</annotations>'
BILLION = BOMB % "".join(f'<!ENTITY {c} "{f"&{b};" * 10}">' for b, c in itertools.pairwise("abcdefghi"))
OUTSIDE = '<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]><annotations><image name="&x;"/></annotations>'


@pytest.mark.parametrize("bomb", [BILLION, OUTSIDE, "<!DOCTYPE annotations SYSTEM 'http://127.0.0.1/x'><annotations/>"])
def test_entities_neither_grow_nor_reach_for_other_files(bomb, tmp_path):
    text(tmp_path / "x.xml", bomb)
    with pytest.raises(SupportError, match=r"x\.xml: XML with a document type or entities"):
        cvat.FORMAT.read_annotations(tmp_path)


def test_deep_documents_are_refused(tmp_path):
    for name, content in {"x.json": "[" * 100_000, "support.yaml": "[" * 3_000, "x.xml": "<a>" * 100_000}.items():
        folder = tmp_path / name.replace(".", "")
        text(folder / name, content)
        assert refusals(folder) == 2, name


@pytest.mark.parametrize(
    "line",
    [
        "0 0.5 0.5 1.5 0.5 0.5 0.9",
        "7 0 0 1 0 1 1",
        "-1 0 0 1 0 1 1",
        "0 0.5 0.5 0.2 -0.2",
        "0 0.5",
        "0.5 0 0 1 1",
        "0 nan 0 1 0 1 1",
        "0 0 0 1 0 1",
        "0 0.5 0.5 0 0.1",
        "cat 0 0 1 0 1 1",
        "0 120 80 40 60 50 10",
    ],
)
def test_yolo_lines_out_of_range_name_the_line(line, tmp_path):
    folder = yolo.FORMAT.write_annotations(
        annotation_set(tmp_path / "images", {"a.png": LABELS}, ("one", "two")), tmp_path
    ).parent
    text(folder / "labels/a.txt", f"0 0 0 1 0 1 1\n{line}\n")
    with pytest.raises(SupportError, match=r"a\.txt: line 2: "):
        yolo.FORMAT.read_shots(folder)
    found = yolo.FORMAT.read_annotations(folder)
    assert not list(found.images) and "a.txt: line 2: " in found.skipped.failures[0]


NAMES = [
    "a b.png",
    "ä ö 猫.png",
    'it\'s "quoted".png',
    "a..png.png",
    "a.b.c.png",
    "-x.png",
    "#%&;=?.png",
    "x" * 251 + ".png",
]


@pytest.mark.parametrize("name", NAMES)
def test_odd_names_go_through_every_format(name, tmp_path):
    labels = annotation_set(tmp_path / "images", {name: LABELS}, ("one", "two"))
    long = len(name) > 250  # x.json of a name as long as the file system takes has no room for one letter more
    for writer in (coco, cvat, label_studio) if long else (coco, cvat, label_studio, labelme, yolo, voc):
        path = writer.FORMAT.write_annotations(labels, tmp_path / "out")
        (read,) = list(
            writer.FORMAT.read_annotations(path, None if writer in (yolo, voc) else tmp_path / "images").images
        )
        assert read.path is not None and read.path.resolve() == (tmp_path / "images" / name).resolve(), writer.__name__
        np.testing.assert_array_equal(read.labels(("one", "two")), LABELS)


def with_stems(labels: AnnotationSet) -> AnnotationSet:
    """As readers name results: y/a.png and y/a.jpg keep their suffix."""
    stems = unique_stems([image.name for image in labels.images])
    return replace(labels, images=[replace(image, stem=stems[image.name]) for image in labels.images])


def test_looped_links_end_and_one_stem_in_two_folders_stays_two(tmp_path):
    masks = {"x/a.png": LABELS, "y/a.png": LABELS[::-1].copy(), "y/a.jpg": LABELS}
    labels = with_stems(annotation_set(tmp_path / "images", masks, ("one", "two")))
    for writer in (labelme, yolo, voc, coco, cvat, label_studio):
        out = tmp_path / writer.__name__
        path = writer.FORMAT.write_annotations(labels, out)
        (out / "loop").symlink_to(out)
        read = writer.FORMAT.read_annotations(
            path, tmp_path / "images" if writer in (coco, cvat, label_studio) else None
        )
        assert len(list(read.images)) == 3
        assert len(shots_of(read)) == 3


def test_inputs_are_never_written_to(tmp_path):
    picture(tmp_path / "in/cat/a.jpg")
    mask(tmp_path / "in/cat/a.png", square(1))
    before = {path: path.read_bytes() for path in (tmp_path / "in").rglob("*.*")}
    (tmp_path / "in/cat").chmod(0o500)
    read, _ = base.read_labels(tmp_path / "in")
    for writer in (coco, cvat, label_studio, labelme, yolo, voc):
        writer.FORMAT.write_annotations(read, tmp_path / "out")
    (tmp_path / "in/cat").chmod(0o700)
    assert {path: path.read_bytes() for path in (tmp_path / "in").rglob("*.*")} == before
    shutil.rmtree(tmp_path / "out")
