"""One odd item among others: it is refused or skipped by name, and nothing else is lost."""

import json
import re
from pathlib import Path

import numpy as np
import pytest

from kshot.annotations.model import Annotation, AnnotationSet, LabelledImage, Prompts
from kshot.errors import KshotError, SupportError
from kshot.formats import coco
from kshot.formats.base import load_format, read_labels, read_support
from kshot.formats.png import save_labels
from kshot.io.names import leads_out
from tests.support.commands import run
from tests.support.files import mask, picture, square, text

H, W = 6, 8
OUTLINE = [[1, 1], [4, 1], [4, 4], [1, 4]]


def of_coco(name: str) -> object:
    image = {"id": 1, "file_name": name, "height": H, "width": W}
    one = {"id": 1, "image_id": 1, "category_id": 1, "segmentation": [[x for point in OUTLINE for x in point]]}
    return {"images": [image], "annotations": [one], "categories": [{"id": 1, "name": "cat"}]}


def of_cvat(name: str) -> str:
    points = ";".join(f"{x},{y}" for x, y in OUTLINE)
    shape = f'<polygon label="cat" points="{points}"/>'
    return f'<annotations><image id="0" name="{name}" width="{W}" height="{H}">{shape}</image></annotations>'


def of_label_studio(name: str) -> object:
    value = {"points": [[100 * x / W, 100 * y / H] for x, y in OUTLINE], "polygonlabels": ["cat"]}
    region = {"type": "polygonlabels", "value": value, "original_width": W, "original_height": H}
    return [{"data": {"image": name}, "annotations": [{"result": [region]}]}]


def of_labelme(name: str) -> object:
    shapes = [{"label": "cat", "points": OUTLINE, "shape_type": "polygon"}]
    return {"imagePath": name, "imageData": None, "imageHeight": H, "imageWidth": W, "shapes": shapes}


FILES = {"coco": ("x.json", of_coco), "cvat": ("x.xml", of_cvat)}
FILES |= {"label_studio": ("x.json", of_label_studio), "labelme": ("x.json", of_labelme)}
NAMES = [
    "../x.jpg",
    "a/../../x.jpg",
    "..\\x.jpg",
    "/etc/x.jpg",
    "C:\\x\\x.jpg",
    "C:x.jpg",
    "\\\\host\\x.jpg",
    "a\0x.jpg",
]
NAMES += ["", " ", ".", "..", "/", "C:", "http://host/x.jpg", "/data/local-files/?d=../x.jpg", "file:///etc/x.jpg"]


@pytest.mark.parametrize("there", [False, True])
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("tool", FILES)
def test_no_reader_hands_on_a_name_that_leads_out(tool: str, name: str, there: bool, tmp_path: Path) -> None:
    file, made = FILES[tool]
    if "\0" in name and tool == "cvat":
        pytest.skip("XML holds no zero")
    text(tmp_path / "in" / file, made(name))
    if there:
        picture(tmp_path / "in" / "x.jpg", (H, W))
    picture(tmp_path / "x.jpg", (H, W))
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    try:
        read, _ = read_labels(tmp_path / "in")
        images = list(read.images)
    except KshotError as error:
        assert str(error).strip()
        return
    assert images or read.skipped.failures
    for image in images:
        assert not leads_out(image.name) and not re.match("[A-Za-z]:|.*\\\\", image.name), image.name
        for writer in (*FILES, "yolo", "voc", "index_masks"):
            load_format(writer).write_annotations(read, tmp_path / "out" / writer)
    assert {path: path.read_bytes() for path in before} == before
    made_files = {path for path in tmp_path.rglob("*") if path.is_file()} - before.keys()
    assert all(path.is_relative_to(tmp_path / "out") for path in made_files)


@pytest.mark.parametrize("name", ["/home/x/field/a.jpg", "D:\\field\\a.jpg", "\\\\host\\field\\a.jpg"])
@pytest.mark.parametrize("tool", FILES)
def test_a_path_of_another_machine_finds_the_image_and_is_called_as_it_is_here(tool, name, tmp_path) -> None:
    file, made = FILES[tool]
    text(tmp_path / file, made(name))
    picture(tmp_path / "images" / "a.jpg", (H, W))
    (image,) = read_labels(tmp_path)[0].images
    assert image.path == tmp_path / "images" / "a.jpg"
    assert image.name == ("x.jpg" if tool == "labelme" else "a.jpg")
    assert len(read_support(tmp_path)) == 1


def test_two_entries_of_one_image_never_share_its_results(tmp_path: Path) -> None:
    here, there = (of_cvat(name) for name in ("/here/a.jpg", "/there/a.jpg"))
    text(tmp_path / "x.xml", here.replace("</annotations>", "") + there.replace("<annotations>", ""))
    picture(tmp_path / "a.jpg", (H, W))
    read, _ = read_labels(tmp_path)
    assert [image.name for image in read.images] == ["a.jpg"] and len(read.skipped.failures) == 1


@pytest.mark.parametrize(
    "changed",
    [
        {"input": "/etc/passwd"},
        {"input": "../a.jpg"},
        {"input": ""},
        {"input": "a\0.jpg"},
        {"outputs": {"coco": "../x.json"}},
        {"outputs": {"coco": "/x.json"}},
        {"mask": "/a.png"},
    ],
)
def test_a_manifest_whose_names_lead_out_is_refused(changed: dict, tmp_path: Path) -> None:
    of_run(tmp_path, **changed)
    with pytest.raises(SupportError, match="no record of a run"):
        read_labels(tmp_path)


def of_run(folder: Path, names: tuple[str, ...] = ("a",), **changed: object) -> None:
    about = {"present": 0.9, "pixels": 9, "regions": 1, "score": 0.8}
    lines = []
    for name in names:
        picture(folder / "in" / f"{name}.jpg", (H, W))
        (folder / "masks").mkdir(exist_ok=True)
        save_labels(square(1), folder / f"masks/{name}.png")
        record = {"input": f"{name}.jpg", "status": "done", "size_hw": [H, W], "mask": f"masks/{name}.png"}
        lines.append(json.dumps(record | {"outputs": {}, "classes": {"cat": about}} | changed) + "\n")
    text(folder / "manifest.jsonl", "".join(lines))
    text(folder / "settings.json", {"classes": ["cat"], "images": str(folder / "in")})


def in_class_folders(folder: Path) -> Path:
    for name in "abc":
        picture(folder / "cat" / f"{name}.jpg", (H, W))
        mask(folder / "cat" / f"{name}.png", square(1))
    return folder / "cat" / "b.png"


def in_index_masks(folder: Path) -> Path:
    text(folder / "classes.json", {"1": "cat"})
    for name in "abc":
        picture(folder / "images" / f"{name}.jpg", (H, W))
        mask(folder / "masks" / f"{name}.png", square(1))
    return folder / "masks" / "b.png"


def in_voc(folder: Path) -> Path:
    for name in "abc":
        picture(folder / "JPEGImages" / f"{name}.jpg", (H, W))
        mask(folder / "SegmentationClass" / f"{name}.png", square(1))
    return folder / "SegmentationClass" / "b.png"


def in_a_run(folder: Path) -> Path:
    of_run(folder, ("a", "b", "c"))
    return folder / "masks" / "b.png"


def in_labelme(folder: Path) -> Path:
    for name in "abc":
        picture(folder / f"{name}.jpg", (H, W))
        text(folder / f"{name}.json", of_labelme(f"{name}.jpg"))
    return folder / "b.json"


@pytest.mark.parametrize("damage", [b"", b"no file of this kind", b"{"])
@pytest.mark.parametrize("layout", [in_class_folders, in_index_masks, in_voc, in_a_run, in_labelme])
def test_a_file_that_cannot_be_read_costs_its_image_alone(layout, damage: bytes, tmp_path: Path) -> None:
    odd = layout(tmp_path)
    odd.write_bytes(damage)
    read, _ = read_labels(tmp_path)
    assert len(list(read.images)) == 2 and len(read.skipped.failures) == 1 and str(odd) in read.skipped.failures[0]
    support = read_support(tmp_path)
    assert len(support) == 2 and support.failures == 1


@pytest.mark.parametrize("layout", [in_class_folders, in_index_masks, in_labelme])
def test_where_no_file_can_be_read_the_first_is_named(layout, tmp_path: Path) -> None:
    odd = layout(tmp_path)
    for path in odd.parent.glob(f"*{odd.suffix}"):
        path.write_bytes(b"nothing")
    with pytest.raises(KshotError, match=re.escape(str(odd.with_stem("a")))):
        read_support(tmp_path)


@pytest.mark.parametrize("tool", ["coco", "cvat", "label_studio"])
def test_a_damaged_document_beside_the_one_that_is_read_is_named(tool: str, tmp_path: Path) -> None:
    file, made = FILES[tool]
    text(tmp_path / file, made("a.jpg"))
    (tmp_path / f"old{Path(file).suffix}").write_bytes(b"\xff\xfe{")
    picture(tmp_path / "a.jpg", (H, W))
    read, _ = read_labels(tmp_path)
    assert len(list(read.images)) == 1 and "old." in read.skipped.failures[0]
    run("convert", tmp_path, "--to", "png", "-o", tmp_path / "out", code=3)
    assert (tmp_path / "out/masks/a.png").is_file()


def test_a_mask_of_another_size_fails_alone(tmp_path: Path) -> None:
    mask(in_class_folders(tmp_path), square(1, (12, 16)))
    read, _ = read_labels(tmp_path)
    assert len(list(read.images)) == 2 and "b.jpg is 16 x 12 pixels" in read.skipped.failures[0]


@pytest.mark.parametrize("where", ["mask", "boxes", "points", "scribbles"])
def test_a_label_of_no_class_is_refused_by_every_writer(where: str, tmp_path: Path) -> None:
    marks = Prompts(**{where: {"dog": [[1.0, 1, 4, 4]]}}) if where != "mask" else Prompts()
    shown = (Annotation.from_mask(square(1), "dog"),) if where == "mask" else ()
    labels = AnnotationSet(("cat",), [LabelledImage("a.jpg", (H, W), shown, prompts=marks)])
    for writer in (*FILES, "yolo", "voc", "index_masks", "geojson"):
        with pytest.raises(SupportError, match=r"a\.jpg: the label 'dog', but the classes are cat"):
            load_format(writer).write_annotations(labels, tmp_path)


def test_objects_of_a_run_that_are_of_no_class_of_it_fail_alone(tmp_path: Path) -> None:
    of_run(tmp_path, ("a", "b"), outputs={"instances": "x.json"})
    shown = (Annotation.from_mask(square(1), "dog"),)
    coco.save(AnnotationSet(("dog",), [LabelledImage("a", (H, W), shown)]), tmp_path / "x.json")
    read, _ = read_labels(tmp_path)
    assert not list(read.images) and "the label 'dog'" in read.skipped.failures[0]


@pytest.mark.parametrize("classes", [("cat", "cat"), ("",), (" ", "cat")])
def test_a_class_has_a_name_of_its_own(classes: tuple[str, ...]) -> None:
    with pytest.raises(SupportError, match="a name each"):
        AnnotationSet(classes, [])


@pytest.mark.parametrize(
    ("to", "lost"), [("yolo", 2), ("cvat", 2), ("png", 2), ("voc", 2), ("coco", 0), ("labelme", 0)]
)
def test_scores_that_a_format_does_not_hold_are_counted(to: str, lost: int, tmp_path: Path) -> None:
    of_run(tmp_path / "run", ("a", "b"))
    facts = json.loads(run("convert", tmp_path / "run", "--to", to, "-o", tmp_path / "out", "--json").stdout)
    assert facts["left_out"] == (
        {f"scores, which {'index_masks' if to == 'png' else to} does not hold": lost} if lost else {}
    )


@pytest.mark.parametrize("tool", ["coco", "cvat", "label_studio", "labelme", "yolo"])
def test_a_turned_box_is_read_by_its_pixels(tool: str, tmp_path: Path) -> None:
    """Of 4 x 2 pixels about (4, 3), turned by 30 degrees."""
    turn = np.deg2rad(30)
    corners = np.array([[-2, -1], [2, -1], [2, 1], [-2, 1]]) @ [
        [np.cos(turn), np.sin(turn)],
        [-np.sin(turn), np.cos(turn)],
    ] + np.array([4, 3])
    picture(tmp_path / "a.jpg", (H, W))
    if tool == "coco":
        box = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [2, 2, 4, 2], "attributes": {"rotation": 30}}
        text(tmp_path / "x.json", of_coco("a.jpg") | {"annotations": [box]})
    elif tool == "cvat":
        box = '<box label="cat" xtl="2" ytl="2" xbr="6" ybr="4" rotation="30"/>'
        text(tmp_path / "x.xml", re.sub("<polygon.*/>", box, of_cvat("a.jpg")))
    elif tool == "label_studio":
        x, y = corners[0]
        value = {"x": 100 * x / W, "y": 100 * y / H, "width": 50, "height": 100 / 3, "rotation": 30}
        region = {"type": "rectanglelabels", "value": value | {"rectanglelabels": ["cat"]}}
        region |= {"original_width": W, "original_height": H}
        text(tmp_path / "x.json", [{"data": {"image": "a.jpg"}, "annotations": [{"result": [region]}]}])
    elif tool == "labelme":
        turned = {"label": "cat", "shape_type": "rectangle", "points": corners.tolist()}
        text(tmp_path / "x.json", of_labelme("a.jpg") | {"shapes": [turned]})
    else:
        text(tmp_path / "data.yaml", "names: [cat]")
        picture(tmp_path / "images/a.jpg", (H, W))
        (tmp_path / "a.jpg").unlink()
        line = " ".join(f"{x / W:.9f} {y / H:.9f}" for x, y in corners)
        text(tmp_path / "labels/a.txt", f"0 {line}\n")
    (image,) = read_labels(tmp_path)[0].images
    inside = [[2, 2], [2, 3], [2, 4], [3, 3], [3, 4], [3, 5]]  # the centres that lie in it
    assert np.argwhere(image.annotations[0].mask).tolist() == inside and not image.prompts


def _yolo(folder: Path) -> None:
    picture(folder / "images/a.jpg", (H, W))
    text(folder / "labels/a.txt", "0 0.5 0.5 0.5 0.5\n")
    text(folder / "data.yaml", "names: [cat]\n")


def _index_masks(folder: Path) -> None:
    picture(folder / "images/a.jpg", (H, W))
    mask(folder / "masks/a.png", square(1, (H, W)))
    text(folder / "classes.json", {"1": "cat"})


def _class_folders(folder: Path) -> None:
    picture(folder / "cat/a.jpg", (H, W))
    mask(folder / "cat/a.png", square(1, (H, W)))


DAMAGE = {"notes.json": "{", "export.xml": "<a", "annotations/old.json": '{"a": '}


@pytest.mark.parametrize("damaged", DAMAGE)
@pytest.mark.parametrize("layout", [_yolo, _index_masks, _class_folders])
def test_a_damaged_file_beside_other_labels_costs_itself_alone(layout, damaged: str, tmp_path: Path) -> None:
    layout(tmp_path / "in")
    whole, _ = read_labels(tmp_path / "in")
    shots = len(read_support(tmp_path / "in"))
    text(tmp_path / "in" / damaged, DAMAGE[damaged])
    read, _ = read_labels(tmp_path / "in")
    assert [image.name for image in read.images] == [image.name for image in whole.images]
    (failure,) = read.skipped.failures
    assert damaged in failure and "not valid" in failure
    support = read_support(tmp_path / "in")
    assert len(support) == shots and support.failures == 1 and damaged in support.notes[-1]
    said = run("convert", tmp_path / "in", "--to", "coco", "-o", tmp_path / "out", code=3).output
    assert damaged in said


def test_damaged_labels_are_never_taken_for_images_without_labels(tmp_path: Path) -> None:
    picture(tmp_path / "cat/a.jpg", (H, W))
    assert len(read_support(tmp_path)) == 1
    text(tmp_path / "cat/a.json", "{")
    for read in (read_support, read_labels):
        with pytest.raises(SupportError, match=r"a\.json: not valid JSON"):
            read(tmp_path)


def test_a_damaged_set_of_coco_costs_itself_alone(tmp_path: Path) -> None:
    for name in ("train", "valid"):
        text(tmp_path / name / "_annotations.coco.json", of_coco("a.jpg"))
        picture(tmp_path / name / "a.jpg", (H, W))
    text(tmp_path / "valid/_annotations.coco.json", "{")
    read, _ = read_labels(tmp_path)
    assert [image.name for image in read.images] == ["train/a.jpg"] and len(read.skipped.failures) == 1
