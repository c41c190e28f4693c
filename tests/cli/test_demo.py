"""The demo runs on real photographs that are on this machine, and shows what comes out."""

import json
import re
import shlex
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from kshot.cli import app
from kshot.demo import CASES, run_demo
from kshot.demo import photos as demo_photos
from kshot.demo.photos import PHOTOS, read_photo, read_truth
from kshot.demo.run import run_case
from kshot.errors import ImageReadError, SettingError
from kshot.io.images import read_mask
from kshot.segmenter import Segmenter
from kshot.types import SupportSet

DEMO = Path(demo_photos.__file__).parent


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    out = tmp_path_factory.mktemp("demo") / "out"
    result = CliRunner().invoke(app, ["demo", "-o", str(out), "--backbone", "toy"])
    assert result.exit_code == 0, result.output
    return out, result.stdout


def test_writes_every_case_and_says_where_in_four_lines(shown: tuple[Path, str]) -> None:
    out, printed = shown
    lines = printed.splitlines()
    assert len(lines) == 4
    assert lines[2] == f"report: {out / 'report.html'}"
    assert lines[-1].endswith(f"kshot serve {out}/coins/images {out}/coins/support -o {out}/page --open")
    for case in CASES:
        folder = out / case.name
        assert SupportSet.from_folder(folder / "support").classes == case.classes
        for view in case.queries:
            for part in (f"masks/{view.name}.png", f"overlays/{view.name}.jpg", f"scores/{view.name}.npz"):
                assert (folder / "result" / part).is_file()


def test_the_page_carries_everything(shown: tuple[Path, str]) -> None:
    out, _ = shown
    page = (out / "report.html").read_text(encoding="utf-8")
    addresses = re.findall(r'(?:src|href)="([^"]*)"', page)
    assert addresses
    assert all(re.match(r"data:image/jpeg;base64,|#", address) for address in addresses)
    panes = sum(len(case.queries) * 3 + len(case.supports) for case in CASES)
    assert sum(address.startswith("data:") for address in addresses) == panes
    assert "//" not in re.sub(r"data:image[^\"]*", "", page.split("<script>")[0])


def test_its_commands_give_the_same_masks_again(shown: tuple[Path, str]) -> None:
    out, _ = shown
    result = out / "coins" / "result"
    command = json.loads((result / "settings.json").read_text())["command"]
    before = (result / "masks" / "bottom.png").read_bytes()
    (result / "masks" / "bottom.png").unlink()
    assert CliRunner().invoke(app, shlex.split(command)[1:]).exit_code == 0
    assert (result / "masks" / "bottom.png").read_bytes() == before


def test_a_folder_with_something_in_it_is_kept(shown: tuple[Path, str]) -> None:
    with pytest.raises(SettingError, match="--overwrite"):
        run_demo(shown[0], backbone="toy")


def test_finds_the_coins(tmp_path: Path) -> None:
    case = CASES[0]
    result = run_case(case, tmp_path, Segmenter())
    assert result.iou > 0.85
    for view in case.queries:
        found = read_mask(tmp_path / "result" / "masks" / f"{view.name}.png", drawn=False) > 0
        truth = view.read()[1] > 0
        assert found[truth].mean() > 0.85  # the coins are in it
        assert found[~truth].mean() < 0.05  # and the table is not


def test_masks_and_terms_of_every_photograph() -> None:
    readme = (DEMO / "README.md").read_text(encoding="utf-8")
    used = {view.photo for case in CASES for view in (*case.supports, *case.queries)}
    assert used == set(PHOTOS) == {path.stem for path in (DEMO / "masks").glob("*.png")}
    for name in used:
        photo = PHOTOS[name]
        assert re.search(
            rf"^\| {name} \| `{photo.package}/{photo.path}` \|.*(public domain|CC0|no known)", readme, re.M
        )
        truth = read_truth(name)
        assert truth.shape == read_photo(name).shape[:2]
        assert 0.01 < np.mean(truth > 0) < 0.8


def test_supports_and_queries_never_overlap() -> None:
    for case in CASES:
        for support in case.supports:
            for query in case.queries:
                if support.photo == query.photo and support.box_xyxy and query.box_xyxy:
                    (ax0, ay0, ax1, ay1), (bx0, by0, bx1, by1) = support.box_xyxy, query.box_xyxy
                    assert ax1 <= bx0 or bx1 <= ax0 or ay1 <= by0 or by1 <= ay0


def test_a_library_that_is_missing_or_changed_costs_one_case(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hopper = PHOTOS["grace_hopper"]
    monkeypatch.setattr("kshot.demo.run.CASES", CASES[-1:])
    monkeypatch.setitem(PHOTOS, "grace_hopper", demo_photos.Photo("no_such_library", hopper.path, hopper.size_hw))
    demo = run_demo(tmp_path / "out", backbone="toy")
    assert not demo.cases
    assert "pip install no_such_library" in demo.skipped["person"]
    assert "pip install no_such_library" in demo.report.read_text(encoding="utf-8")
    monkeypatch.setitem(PHOTOS, "grace_hopper", demo_photos.Photo("matplotlib", hopper.path, (1, 2)))
    with pytest.raises(ImageReadError, match="not the"):
        read_photo("grace_hopper")


def test_json(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kshot.demo.run.CASES", CASES[:1])
    arguments = ["demo", "-o", str(tmp_path / "out"), "--backbone", "toy", "--json"]
    facts = json.loads(CliRunner().invoke(app, arguments).stdout)
    assert facts["report"] == str(tmp_path / "out" / "report.html")
    assert set(facts["cases"][0]["iou"]) == {"top-right", "bottom"}
