"""Damaged files of every kind: only kshot's own errors come out, soon, and within the memory of a small machine."""

import io
import itertools
import json
import resource
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from kshot.annotations.model import AnnotationSet, Export, split_into_instances
from kshot.annotations.shots import shots_of
from kshot.errors import KshotError, SupportError
from kshot.formats import base, coco, cvat, label_studio, labelme, voc, yolo
from kshot.formats.scores import read as read_scores
from kshot.io.images import read_image, read_mask
from kshot.io.stems import unique_stems
from tests.support.annotation_sets import annotation_set
from tests.support.files import mask, picture, square, text

LABELS = np.pad(np.full((4, 5), 1, np.uint8), 2)
LABELS[3, 4], LABELS[7:, 7:] = 0, 2
CASES = {"image": 240, "document": 120}
# Numbers and words that readers stumble over.
VALUES = [-1, 0, 1e308, float("nan"), 2**63, 10**30, -(10**9), "", "x", "\0", "../../a.png", "a" * 300, None, [], {}]
VALUES += [True, [[]], [None], {"a": []}, "/etc/passwd", "\ud800", 1e-300, 3.5, [[1, 2], [3]], ["1", 2], 255, 1 << 40]


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
    before = resource.getrlimit(resource.RLIMIT_AS)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + (3 << 30), before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, before)


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


def made(name: str, root: Path) -> Path:
    """A folder of one format with its images; returns its document."""
    labels = annotation_set(root / "images", {"a.png": LABELS, "b.png": LABELS.T.copy()}, ("one", "two"))
    writers: dict[str, Callable[[], Path]] = {
        "coco": lambda: coco.FORMAT.write_annotations(labels, root),
        "coco polygons": lambda: coco.FORMAT.write_annotations(labels, root, Export(polygons=True)),
        "cvat": lambda: cvat.FORMAT.write_annotations(labels, root),
        "cvat polygons": lambda: cvat.FORMAT.write_annotations(labels, root, Export(polygons=True)),
        "label_studio": lambda: label_studio.FORMAT.write_annotations(labels, root),
        "label_studio polygons": lambda: label_studio.FORMAT.write_annotations(labels, root, Export(polygons=True)),
        "labelme": lambda: labelme.FORMAT.write_annotations(labels, root) / "a.json",
        "labelme polygons": lambda: labelme.FORMAT.write_annotations(labels, root, Export(polygons=True)) / "a.json",
        "yolo": lambda: yolo.FORMAT.write_annotations(labels, root),
        "yolo labels": lambda: yolo.FORMAT.write_annotations(labels, root).parent / "labels" / "a.txt",
        "voc": lambda: voc.FORMAT.write_annotations(split_into_instances(labels, "components"), root) / "labelmap.txt",
    }
    return writers[name]()


DOCUMENTS = ["coco", "coco polygons", "cvat", "cvat polygons", "label_studio", "label_studio polygons"]
DOCUMENTS += ["labelme", "labelme polygons", "yolo", "yolo labels", "voc"]


@pytest.mark.parametrize("name", DOCUMENTS)
def test_damaged_bytes_of_documents_are_refused_or_read(name, tmp_path):
    path = made(name, tmp_path)
    whole, rng = path.read_bytes(), np.random.default_rng(2)
    folder = tmp_path / name if (tmp_path / name).is_dir() else tmp_path
    folder = path.parent if name in {"yolo", "voc"} else path.parents[1] if name == "yolo labels" else folder
    folder = path.parent if name.startswith("labelme") else folder
    assert refusals(folder) == 0  # undamaged
    refused = []
    for _ in range(CASES["document"]):
        path.write_bytes(damaged(whole, rng))
        refused.append(refusals(folder))
    assert any(refused)


@pytest.mark.parametrize("name", ["coco", "coco polygons", "label_studio", "label_studio polygons", "labelme", "yolo"])
def test_wrong_values_in_any_place_are_refused_or_read(name, tmp_path):
    path = made(name, tmp_path)
    document = yaml.safe_load(path.read_text())
    rng = np.random.default_rng(3)
    every = [p for p in places(document) if "rle" not in p[:-1]]
    chosen = [(every[int(rng.integers(len(every)))], VALUES[i % len(VALUES)]) for i in range(CASES["document"])]
    folder = path.parent if name in {"labelme", "yolo"} else tmp_path
    packed = yaml.safe_dump if name == "yolo" else json.dumps  # JSON would make words of the labels' numbers
    path.write_text(packed(document), encoding="utf-8")
    assert refusals(folder) == 0  # undamaged
    refused = []
    for place, value in chosen:
        path.write_text(packed(with_value(document, place, value)), encoding="utf-8", errors="replace")
        refused.append(refusals(folder))
    assert any(refused)


def test_damaged_support_yaml_and_score_maps(tmp_path):
    picture(tmp_path / "a.png")
    whole = b"- {image: a.png, boxes: [[1, 1, 4, 4]], label: cat}\n- {image: a.png, points: [[2, 3]], label: [x]}\n"
    rng = np.random.default_rng(4)
    for _ in range(CASES["document"]):
        (tmp_path / "support.yaml").write_bytes(damaged(whole, rng))
        refusals(tmp_path)
    np.savez_compressed(
        tmp_path / "x.npz", scores=np.zeros((2, 3, 3), np.uint16), classes=np.array(["a"]), present=[1.0]
    )
    packed = (tmp_path / "x.npz").read_bytes()
    for _ in range(CASES["document"]):
        (tmp_path / "x.npz").write_bytes(damaged(packed, rng))
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
