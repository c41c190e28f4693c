"""What the README promises, sentence by sentence, beside its commands and snippets, which `tests/docs` runs."""

import json
import re
import shlex
import socket
from dataclasses import FrozenInstanceError
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors import safe_open

import kshot
from kshot.batch import read_manifest
from kshot.io.images import read_mask
from kshot.types import Shot, SupportSet
from tests.support.commands import TOY, run
from tests.support.disc_folders import make_discs
from tests.support.drawing import draw

README = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
# Of the table of prompts: kind, Python and command line; a row without an option has a folder, which others test.
ROWS = re.findall(r"^\| ([^|`]+?) \| `(Shot\(.*?\))` \| (.*?) \|$", README, re.M)
OPTIONS = [(kind, option[1]) for kind, _, line in ROWS if (option := re.match(r"`(--.*?)`", line))]


def state(*folders: Path) -> dict[str, tuple[bytes, int, int]]:
    """Contents, times and modes of all files and folders."""
    paths = [path for folder in folders for path in (folder, *folder.rglob("*"))]
    return {
        str(path): (path.read_bytes() if path.is_file() else b"", path.stat().st_mtime_ns, path.stat().st_mode)
        for path in paths
    }


@pytest.fixture
def cat(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """a.jpg with a cat and a dog in the mask a.png, and images/; a folder that is the current one."""
    monkeypatch.chdir(tmp_path)
    picture, mask = draw(3, (320, 420))
    other = draw(4, (320, 420))[1]
    Image.fromarray(picture).save("a.jpg", quality=95)
    Image.fromarray(np.where(mask, 1, np.where(other, 2, 0)).astype(np.uint8)).save("a.png")
    Path("images").mkdir()
    Image.fromarray(draw(5, (320, 420))[0]).save("images/b.jpg", quality=95)
    return tmp_path


def test_nothing_of_it_here_is_an_answer(support_folder: Path, image_folder: Path, tmp_path: Path) -> None:
    done = json.loads(run("label", support_folder, image_folder, "-o", tmp_path / "out", "--json", *TOY).stdout)
    empty = [record for record in read_manifest(tmp_path / "out") if record["status"] == "empty"]
    assert done["empty"] == 1 and [record["input"] for record in empty] == ["none.jpg"]
    assert not read_mask(tmp_path / "out" / empty[0]["mask"]).any()
    assert empty[0]["classes"]["disc"]["pixels"] == 0


def test_of_several_classes_at_once_each_may_be_absent(toy: kshot.Segmenter) -> None:
    red, mask = draw(1)
    blue = red[..., ::-1]  # the disc is blue there
    task = toy.fit([Shot(red, mask=mask, label="red"), Shot(blue, mask=mask, label="blue")])
    for seed, turn, shown in ((3, 1, {"red"}), (4, -1, {"blue"})):
        found = toy.predict(task, np.ascontiguousarray(draw(seed)[0][..., ::turn]))
        assert {name for name, pixels in found.areas().items() if pixels} == shown
    assert not toy.predict(task, draw(6, disc=False)[0]).mask.any()


def test_out_gets_what_the_readme_lists(
    support_folder: Path, image_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (command,) = re.findall(r"^kshot (label support/ images/ -o out/ --format \S+)$", README, re.M)
    run(*command.split(), *TOY)
    records = read_manifest(Path("out"))
    assert [record["input"] for record in records] == ["a.jpg", "b.png", "none.jpg", "sub/a.jpg"]
    for record in records:
        stem = record["input"].rpartition(".")[0]
        assert Path("out/masks", f"{stem}.png").is_file() and Path("out/overlays", f"{stem}.jpg").is_file()
    assert len(json.loads(Path("out/coco.json").read_text())["images"]) == 4
    assert "<html" in Path("out/report.html").read_text()


@pytest.mark.parametrize(("kind", "option"), OPTIONS, ids=[kind for kind, _ in OPTIONS])
def test_every_kind_of_prompt_is_an_option(kind: str, option: str, cat: Path) -> None:
    arguments = ["label", "images", *shlex.split(option), "-o", "out", *TOY]
    if "--text" in option:  # toy reads no words
        assert "reads no words" in str(run(*arguments, code=1).exception)
    else:
        run(*arguments)
        assert read_manifest(Path("out"))[0]["classes"].keys() == {"cat"}


@pytest.mark.parametrize(("kind", "code"), [row[:2] for row in ROWS], ids=[kind for kind, *_ in ROWS])
def test_every_kind_of_prompt_is_a_shot(kind: str, code: str, cat: Path, toy: kshot.Segmenter) -> None:
    shot = eval(code, {"Shot": Shot})
    if shot.prompt != "text":
        assert set(toy.predict(toy.fit([shot]), "images/b.jpg").present) == set(shot.classes)


def test_kinds_mix_within_a_class_and_255_is_ignored(cat: Path, toy: kshot.Segmenter) -> None:
    assert len(ROWS) == 7 and len(OPTIONS) == 6
    picture, mask = draw(1)
    ignored = np.where(mask, 1, 255).astype(np.uint8)
    shots = [Shot(picture, mask=mask, label="cat"), Shot("a.jpg", boxes=[[120, 40, 380, 300]], label="cat")]
    assert toy.fit(shots).classes == ("cat",)
    (support,) = toy.encode([Shot(picture, mask=ignored, label={1: "cat"})], ["cat"])
    assert float(support.background.max()) == 0  # nothing is known to be background


def test_tasks_are_frozen_and_their_files_are_safetensors_with_json(cat: Path, toy: kshot.Segmenter) -> None:
    task = toy.fit(SupportSet([Shot("a.jpg", mask="a.png", label={1: "cat", 2: "dog"})]))
    with pytest.raises(FrozenInstanceError):
        task.classes = ("other",)
    with safe_open(task.save("cat.kshot"), framework="pt") as file:
        assert json.loads(file.metadata()["kshot"])["classes"] == ["cat", "dog"]


def test_the_default_backbone_needs_no_network(cat: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket.socket, "connect", lambda *_: pytest.fail("it asked the network"))
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: pytest.fail("it asked the network"))
    seg = kshot.Segmenter()
    assert seg.backbone.spec.name == "tiny"
    seg.predict(seg.fit([Shot("a.jpg", mask="a.png", label={1: "cat", 2: "dog"})]), "images/b.jpg")


def test_every_backbone_has_a_licence_that_is_named() -> None:
    for row in json.loads(run("models", "list", "--json").stdout):
        assert row["licence"], row["name"]
    assert "licence" in run("models", "info", "dinov3-small").stdout


@pytest.mark.parametrize("to", ["png", "coco", "yolo", "voc", "labelme", "cvat", "label-studio"])
def test_inputs_of_every_command_are_never_written_to(
    support_folder: Path, image_folder: Path, tmp_path: Path, to: str
) -> None:
    before = state(support_folder, image_folder)
    out, task = tmp_path / "out", tmp_path / "disc.kshot"
    run("fit", support_folder, "-o", task, *TOY)
    for flags in ([], ["--overwrite"], ["--resume"]):
        run("predict", task, image_folder, "-o", out, "--format", f"png,{to}", *flags)
    run("label", support_folder, image_folder, "-o", tmp_path / "labelled", "--format", f"png,{to}", *TOY)
    run("convert", support_folder, "--to", to, "-o", tmp_path / "converted", "--copy-images")
    run("report", out)
    assert state(support_folder, image_folder) == before


def test_nor_are_data_sets_runs_and_photographs(image_folder: Path, tmp_path: Path) -> None:
    root = make_discs(tmp_path / "data", count=4)
    before = state(root, image_folder)
    for name, method in (("a", "auto"), ("b", "prototype")):
        how = ["--method", method, "--episodes", 2, "--workers", 1, "--cache", tmp_path / "cache"]
        run("eval", "folder", "--root", root, "-o", tmp_path / name, *how, *TOY)
    run("datasets", root)
    runs = state(tmp_path / "a", tmp_path / "b")
    run("compare", tmp_path / "a", tmp_path / "b", "-o", tmp_path / "page.html")
    run(
        "train",
        "background",
        image_folder,
        "--backbone",
        "toy",
        "--patches",
        8,
        "--clusters",
        4,
        "-o",
        tmp_path / "prior",
    )
    assert state(root, image_folder) == before and state(tmp_path / "a", tmp_path / "b") == runs
