"""Every documented command and snippet is run, as it stands, in a folder that holds what the text speaks of."""

import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import fields
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image
from typer.testing import CliRunner

from kshot._plugins import members
from kshot.cli import app
from kshot.errors import KshotError
from kshot.formats.base import read_support
from tests.support.drawing import draw
from tests.support.films import film, scan
from tests.support.libraries import missing
from tests.support.listings import ADDING, example_distribution, installed, listings

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
# The tour is one session, and has a test of its own.
RUN = [page for page in PAGES if page.name != "tour.md"]
# Needs a network, or a whole benchmark: the options are parsed, the work is not done.
PARSED_ONLY = (
    "clip-dinoiser",
    "dinov2",
    "dinov3",
    *(f"kshot {command}" for command in ("models pull", "eval", "compare", "datasets", "demo", "serve", "train")),
)


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(encoding="utf-8"), re.M | re.S)


def commands(page: Path) -> list[str]:
    text = "\n".join(blocks(page, "sh")).replace("\\\n", " ")
    lines = [re.sub(r"\s+#.*", "", line).strip() for line in text.splitlines()]
    return [line for line in lines if line.startswith("kshot ")]


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """support/cat, support/dog, images/ and more/ with pictures called a, b, c, d, e."""
    monkeypatch.chdir(tmp_path)
    for name, value in {"BACKBONE": "toy", "SIZE": "96", "DEVICE": "cpu"}.items():
        monkeypatch.setenv(f"KSHOT_{name}", value)
    for folder in ("support/cat", "support/dog", "images", "more"):
        Path(folder).mkdir(parents=True)
    for seed, name in enumerate("abcde"):
        picture, mask = draw(seed, (320, 420))
        for folder in ("support/cat", "images", "more", "."):
            Image.fromarray(picture).save(Path(folder, f"{name}.jpg"))
        for folder in ("support/cat", "."):
            Image.fromarray(mask.astype(np.uint8) * 255).save(Path(folder, f"{name}.png"))
    picture, mask = draw(7, (320, 420))
    Image.fromarray(picture[..., ::-1]).save("support/dog/a.jpg")
    Image.fromarray(mask.astype(np.uint8) * 255).save("support/dog/a.png")
    film(Path("film.mp4"), [draw(seed, (320, 420))[0] for seed in (0, 0, 1)])
    scan(Path("stack.tif"))
    if find_spec("zarr"):
        from tests.support.zarrs import write_zarr

        slices = np.stack([draw(seed, (320, 420))[0][..., 0] for seed in range(3)])
        write_zarr(Path("cells.ome.zarr"), slices, "zyx", scale={"z": 2.0, "y": 0.5, "x": 0.5})
    return tmp_path


@contextmanager
def listed(page: Path, workplace: Path) -> Iterator[None]:
    """The files that a page lists are there; a distribution among them is installed."""
    for path, text in listings(page).items():
        if "/" not in path:
            (workplace / path).write_text(text)
    with installed(workplace / "site", example_distribution()) if page == ADDING else nullcontext():
        yield


@pytest.mark.parametrize("page", [p for p in RUN if commands(p)], ids=lambda p: p.name)
def test_every_command_runs(page: Path, workplace: Path) -> None:
    with listed(page, workplace):
        run_commands(page)


def run_commands(page: Path) -> None:
    for number, line in enumerate(commands(page)):
        arguments = shlex.split(line)[1:]
        if any(mark in line for mark in PARSED_ONLY):
            result = CliRunner().invoke(app, [*arguments[:2], "--help"])
            known = set(re.findall(r"--[a-z][a-z-]+", result.output))
            assert result.exit_code == 0, line
            assert {a for a in arguments if a.startswith("--")} <= known, line
            continue
        if missing(line):
            continue
        # Two commands of one page may write to the same folder: each gets its own.
        arguments = [
            f"{a}{number}" if before == "-o" and "." not in a else a
            for before, a in zip(["", *arguments], arguments, strict=False)
        ]
        result = CliRunner().invoke(app, arguments)
        assert result.exit_code == 0, (line, result.output, result.exception)


@pytest.mark.filterwarnings("ignore:OpenCV")  # which supervision misses
@pytest.mark.parametrize("page", [p for p in RUN if blocks(p, "python")], ids=lambda p: p.name)
def test_every_snippet_runs(page: Path, workplace: Path) -> None:
    namespace: dict[str, object] = {}
    with listed(page, workplace):
        for snippet in blocks(page, "python"):
            library = re.match(r"# needs (\w+)( and its database)?\n", snippet)
            if library and (library[2] or find_spec(library[1]) is None):
                continue  # with a database in tests/interop
            if not re.match(r"# [\w/]+\.py\n", snippet):  # a file, which is there
                exec(compile(snippet, str(page), "exec"), namespace)
    assert namespace


def test_the_yaml_of_the_page_is_a_support_folder(workplace: Path) -> None:
    (text,) = blocks(ROOT / "docs" / "how_to" / "supports.md", "yaml")
    (workplace / "support.yaml").write_text(text)
    support = read_support(workplace, ())
    assert support.classes == ("cat",) and [s.prompt for s in support] == [
        "mask",
        "boxes",
        "points",
        "scribbles",
        "none",
    ]
    assert len(yaml.safe_load(text)) == 5


def test_every_error_is_documented() -> None:
    page = (ROOT / "docs" / "errors.md").read_text()
    leaves = [
        cls for cls in _tree(KshotError) if not cls.__subclasses__() or cls.__name__ in {"ImageReadError", "MaskError"}
    ]
    assert len(leaves) > 10
    for error in leaves:
        assert f"`{error.__name__}`" in page, error.__name__


def test_links_between_pages_lead_somewhere() -> None:
    for page in PAGES:
        for target, place in re.findall(r"\]\(([^)#:]*)(?:#([^)]*))?\)", page.read_text(encoding="utf-8")):
            path = page.parent / target if target else page
            assert path.exists(), f"{page.name}: {target}"
            assert not place or place in anchors(path), f"{page.name}: {target}#{place}"


def test_files_and_settings_that_pages_name_are_there() -> None:
    settings = {field.name for module in members("methods").values() for field in fields(module.Settings)}
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for path in re.findall(r"`((?:src|tests|benchmarks|scripts|docs)/[\w./]+|[\w/]+/\w+\.py)`", text):
            known = (ROOT / path).exists() or (ROOT / "src/kshot" / path).exists() or path.endswith("x.py")
            known = known or path in example_distribution()
            assert known, f"{page.name}: {path}"
        named = set(re.findall(r"\bmethod\.([a-z_]+)", text)) if page.name != "log.md" else set()
        assert named <= settings, page.name


def anchors(page: Path) -> set[str]:
    """The places in a page that a link can name, as GitHub calls them."""
    heads = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.M)
    return {re.sub(r"[^\w\- ]", "", head).strip().lower().replace(" ", "-") for head in heads}


@pytest.mark.parametrize(
    ("page", "module", "results"),
    [("methods.md", "tables", "methods_512.json"), ("log.md", "nested", "ablation_512.json")],
)
def test_tables_of_methods_are_what_the_results_say(page: str, module: str, results: str) -> None:
    told = subprocess.run(
        [sys.executable, "-m", f"benchmarks.accuracy.{module}", f"benchmarks/results/{results}"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    lines = [line for line in told.splitlines() if line]
    assert len(lines) >= 8 and [line for line in lines if line not in text] == []


def _tree(cls: type) -> list[type]:
    return [cls, *(below for child in cls.__subclasses__() for below in _tree(child))]
