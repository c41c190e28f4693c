"""Every example in the help of a command runs, with a small backbone, on drawn images."""

import json
import shlex
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.support import tiny_clip
from tests.support.commands import commands, run
from tests.support.dataset_layouts import whole_voc
from tests.support.disc_episodes import make_colours
from tests.support.drawing import draw
from tests.support.film_folders import make_davis
from tests.support.photographs import folder_of
from tests.support.with_heads import make as make_vit


def examples(name: str) -> list[str]:
    """The lines of a command's help that a person can type."""
    command = commands()[name]
    lines = f"{command.help}\n{command.epilog}".splitlines()
    return [line.strip() for line in lines if line.strip().startswith("kshot ")]


SERVING = examples("serve")  # these run until they are stopped
ALONE = [line for name in commands() if not name.startswith(("train", "serve")) for line in examples(name)]
# Examples of these follow each other: what the first one trains, the second one uses.
TRAINING = [name for name in commands() if name.startswith("train ")]
# Options that make an evaluation or a training short.
SHORT = {
    "eval": "--episodes 2 --workers 1",
    "eval davis": "--backbone toy",
    "train heads": "--steps 2 --batch-size 2 --validate-every 1",
    "train distill": (
        "--views 1 --grid 6 --dim 12 --start random --width 64 --blocks 1 --sides 32,48 --epochs 1 --dtype float32"
    ),
    "train finetune": (
        "--backbone tiny --sides 32 --steps 1 --batch-size 2 --photos-per-batch 1 --episodes 2 --size 64 "
        "--dtype float32 --tolerance 1"
    ),
    "train background": "--clusters 4 --patches 8",
    "train episodic": "--epochs 1 --episodes-per-epoch 2 --validation 2 --test 2",
}
# Words in the help of options, and commands that use them.
OPTIONS = {
    ("--set", "method.presence=false, refiner.band=2"): "{label} --set method.presence=false --set refiner.band=2",
    ("--layers", "10,12,k12"): "{label} --layers 10,12,k12 --backbone deep",
    ("--bands", "4,3,2"): "{label} --bands 4,3,2",
    ("--stretch", "0,3000"): "{label} --stretch 0,3000",
    ("--tile", "512"): "{label} --tile 512",
    ("--shard", "2/4"): "{label} --shard 2/4",
    ("--support", "[NAME=]IMAGE:MASK"): "kshot label images/ -o out/ --support disc=d.jpg:d.png",
    ("--box", "[NAME=]IMAGE:x0,y0,x1,y1"): "kshot label images/ -o out/ --box disc=d.jpg:10,20,90,80",
    ("--point", "[NAME=]IMAGE:x,y; off the class: IMAGE:x,y,-"): (
        "kshot label images/ -o out/ --point d.jpg:64,48 --point d.jpg:1,1,-"
    ),
    ("--text", "[NAME=]words"): (
        "kshot label images/ -o out/ --text 'disc=a red disc' --backbone clip-dinoiser --method clip-dinoiser"
    ),
}


@pytest.fixture
def place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, support_folder: Path, image_folder: Path
) -> Callable[[str], None]:
    """A folder where the examples' files are, made when one names them."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("KSHOT_BACKBONE", "toy")
    monkeypatch.setenv("KSHOT_SIZE", "96")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for name in ("a", "d"):
        picture, mask = draw(7)
        Image.fromarray(picture).save(f"{name}.jpg")
        Image.fromarray(mask.astype(np.uint8) * 255).save(f"{name}.png")

    def make(example: str) -> None:
        inputs = example.partition(" -o ")[0]
        if "*.tif" in inputs:
            Image.fromarray(draw(8)[0]).save("images/a.tif")
        if "scene.tif" in inputs:
            draw_scene(Path("scene.tif"))
        if "film.mp4" in inputs:
            pytest.importorskip("av")
            from tests.support.films import film

            film(Path("film.mp4"), [draw(seed)[0] for seed in range(12)])
        if "annotations.json" in inputs:
            draw_annotations(Path("annotations.json"))
        if "VOCdevkit" in inputs:
            whole_voc(Path("VOCdevkit/VOC2012"), per_class=6)
        for name in ("pets", "cells"):
            if name in inputs and ("--root" in inputs or "--check" in inputs):
                make_colours(Path(name), 3)
        if "DAVIS" in inputs:
            make_davis(Path("DAVIS"), {"ant": 3})
        if "photos/" in inputs:
            folder_of(Path("photos"), 8)
        if "cat.kshot" in inputs:
            run("fit", "support/", "-o", "cat.kshot")
        if "out/" in inputs:
            run("label", "support/", "images/", "-o", "out/", "--format", "png,overlay,scores")
            Path("out/accepted").mkdir()
            Path("out/accepted/a.png").write_bytes(Path("out/masks/a.png").read_bytes())

    return make


def draw_scene(path: Path) -> None:
    """Four bands with a place on the Earth."""
    rasterio = pytest.importorskip("rasterio")
    picture = draw(8)[0]
    how = {"driver": "GTiff", "dtype": "uint8", "count": 4, "width": picture.shape[1], "height": picture.shape[0]}
    with rasterio.open(path, "w", crs="EPSG:32632", transform=rasterio.Affine.scale(2), **how) as file:
        file.write(np.stack([picture[..., 0], picture[..., 2], picture[..., 1], picture[..., 0]]))


def draw_annotations(path: Path) -> None:
    box = {"id": 1, "image_id": 1, "category_id": 1, "iscrowd": 0, "area": 4800.0, "bbox": [10, 20, 80, 60]}
    outline = [10, 20, 90, 20, 90, 80, 10, 80]
    facts = {
        "images": [{"id": 1, "file_name": "a.jpg", "width": 128, "height": 96}],
        "categories": [{"id": 1, "name": "cat"}],
        "annotations": [box | {"segmentation": [outline]}],
    }
    path.write_text(json.dumps(facts))


def type_in(example: str, tmp_path: Path) -> None:
    """Run an example; backbones that must be downloaded have random stand-ins."""
    words = shlex.split(example)[1:]
    stand_ins = {
        "clip-dinoiser": lambda: str(tiny_clip.make_dinoiser(tmp_path / "clip")),
        "dinov2-small": lambda: make_vit(tmp_path / "dinov2", "dinov2"),
        "deep": lambda: make_vit(tmp_path / "vit", depth=12),
    }
    for flag in {"--backbone", "--teacher"} & set(words):
        place = words.index(flag) + 1
        words[place] = stand_ins.get(words[place], lambda name=words[place]: name)()
    short = SHORT.get(" ".join(words[:2]), SHORT.get(words[0], ""))
    run(*words, *short.split())


@pytest.mark.parametrize("example", ALONE)
def test_an_example_of_a_command_runs(example: str, place: Callable[[str], None], tmp_path: Path) -> None:
    place(example)
    type_in(example, tmp_path)


@pytest.mark.parametrize("example", SERVING)
def test_an_example_of_the_page_answers_until_it_is_stopped(
    example: str, place: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("uvicorn")
    place(example)
    monkeypatch.setenv("KSHOT_BACKBONE", "tiny")  # a process of its own does not know the tests' toy
    if "cat.kshot" in example:
        run("fit", "support/", "-o", "cat.kshot", "--backbone", "tiny")
    words = [word for word in shlex.split(example)[1:] if word != "--open"]
    command = [sys.executable, "-u", "-m", "kshot", *words, "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            address = process.stdout.readline().removeprefix("open ").strip()
            with urllib.request.urlopen(address, timeout=60) as answer:
                assert answer.status == 200
        finally:
            process.send_signal(signal.SIGINT)
        assert process.wait(60) in {0, 130}


@pytest.mark.parametrize("name", TRAINING)
def test_examples_of_training_run_one_after_the_other(name: str, place: Callable[[str], None], tmp_path: Path) -> None:
    assert examples(name)
    for example in examples(name):
        place(example)
        type_in(example, tmp_path)


@pytest.mark.parametrize(("option", "words"), list(OPTIONS))
def test_an_example_of_an_option_runs(option: str, words: str, place: Callable[[str], None], tmp_path: Path) -> None:
    (parameter,) = (each for each in commands()["label"].params if option in each.opts)
    assert words in str(parameter.help).replace("\\[", "[")
    place("")
    type_in(OPTIONS[option, words].format(label="kshot label support/ images/ -o out/"), tmp_path)


def test_examples_are_found() -> None:
    assert len(ALONE) >= 14 and len(TRAINING) == 5
    assert {line.split()[1] for line in ALONE} == {"label", "fit", "predict", "convert", "eval", "cvat-function"}
