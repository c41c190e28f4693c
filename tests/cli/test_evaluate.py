"""`kshot eval`, `compare` and `datasets`, as a person types them."""

import csv
import json
import re
from pathlib import Path

import pytest

from kshot.errors import DatasetError, SettingError
from tests.support.commands import TOY, run
from tests.support.dataset_layouts import HALF, labels, make_fss, make_voc, whole_coco
from tests.support.disc_folders import make_discs, make_numbered_discs
from tests.support.film_folders import make_davis

EVAL = [*TOY, "--device", "cpu", "--workers", "1", "--cache", "cache"]


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return make_discs(tmp_path / "discs")


def test_several_settings_in_one_go(root: Path) -> None:
    found = run("eval", "auto", "--root", root, "--way", "1,2", "--shot", "1,2", "--episodes", 4, "-o", "out", *EVAL)
    for setting in ("1-way 1-shot", "1-way 2-shot", "2-way 1-shot", "2-way 2-shot"):
        assert setting in found.stdout
    assert "protocol hsnet, data set discs" in found.stdout and "95 % interval" in found.stdout
    facts = json.loads(Path("out/results.json").read_text())
    assert list(facts["runs"]) == ["1way-1shot", "1way-2shot", "2way-1shot", "2way-2shot"]
    assert facts["versions"]["kshot"] and facts["runs"]["1way-1shot"]["rows_sha256"]
    rows = list(csv.DictReader(Path("out/results.csv").read_text().splitlines()))
    assert len(rows) == 4 and float(rows[0]["low"]) <= float(rows[0]["miou"]) <= float(rows[0]["high"])
    page = Path("out/report.html").read_text()
    assert page.count("<svg") >= 13 and "http" not in page.replace("http-equiv", "")
    assert "ground truth" in page and "<b>random</b>" in page
    again = run("eval", "auto", "--root", root, "--way", "1,2", "--shot", "1,2", "--episodes", 4, "-o", "out", *EVAL)
    assert again.stdout == found.stdout
    with pytest.raises(SettingError, match="holds other settings"):
        run_raising("eval", "auto", "--root", root, "--episodes", 4, "-o", "out", *EVAL)


def test_instances_add_figures_to_table_file_and_page(tmp_path: Path) -> None:
    where = ["folder", "--root", make_numbered_discs(tmp_path / "numbered"), "--episodes", 3, *EVAL]
    found = run("eval", *where, "--instances", "watershed", "-o", "out")
    assert "PQ" in found.stdout and "AP50" in found.stdout and "count error" in found.stdout
    (row,) = csv.DictReader(Path("out/results.csv").read_text().splitlines())
    facts = json.loads(Path("out/results.json").read_text())
    for name in ("pq", "sq", "rq", "ap50", "count_error"):
        assert float(row[name]) == pytest.approx(facts["table"][0][name], abs=1e-6)
        assert facts["runs"]["1way-1shot"][name] == facts["table"][0][name]
    low, high = facts["table"][0]["pq_interval"]
    assert (float(row["pq_low"]), float(row["pq_high"])) == pytest.approx((low, high), abs=1e-6)
    assert low <= float(row["pq"]) <= high and f"{low:.4f} to {high:.4f}" in found.stdout
    page = Path("out/report.html").read_text()
    assert "instances: watershed" in page and f"{low:.4f} to {high:.4f}" in page
    assert run("eval", *where, "--instances", "watershed", "-o", "out").stdout == found.stdout


def test_films_in_the_layout_of_davis(tmp_path: Path) -> None:
    make_davis(tmp_path / "davis", {"bear": 4, "cow": 5})
    where = ["eval", "davis", "--root", "davis", *TOY, "--device", "cpu"]
    found = run(*where, "-o", "out", "--memory", 2)
    assert "J&F 0." in found.stdout and "bear" in found.stdout and "mean of 4" in found.stdout
    facts = json.loads(run(*where, "-o", "out", "--memory", 2, "--json").stdout)
    report = Path(facts.pop("report"))
    assert facts == json.loads(Path("out/results.json").read_text()) and facts["settings"]["memory"] == 2
    page = report.read_text()
    assert f"J&amp;F {facts['j_and_f']:.3f}" in page and page.count("<figure") == 2
    shown = re.findall(r"<p>(\w+): (\d+)\.jpg", page)  # of bear 1 and 2 of the counted 1, 2; of cow 2 and 3 of 1, 2, 3
    found = [frame for kind, frame in shown if kind == "found"]
    assert sorted(found) == ["00001", "00002", "00002", "00003"]
    assert found == [frame for kind, frame in shown if kind == "true"]
    with pytest.raises(SettingError, match=r"--way, --instances, --fold say nothing"):
        run_raising(*where, "-o", "b", "--way", 2, "--instances", "watershed", "--fold", 1)
    with pytest.raises(SettingError, match="--memory: episodes of auto are no films"):
        run_raising("eval", "auto", "--root", "davis", "-o", "b", "--memory", 2, *EVAL)


def test_panet_runs_its_five_seeds(root: Path) -> None:
    found = run(
        "eval", "folder", "--root", root, "--protocol", "panet", "--way", 2, "--episodes", 2, "-o", "out", *EVAL
    )
    assert "no folds, 5 seeds" in found.stdout and "PANet mIoU" in found.stdout
    assert len(list(Path("out").glob("2way-1shot-seed*/run.json"))) == 5


def test_the_starting_papers_cells_are_three(root: Path) -> None:
    found = run("eval", "folder", "--root", root, "--protocol", "seed", "--episodes", 2, "-o", "out", *EVAL, "--json")
    facts = json.loads(found.stdout)
    assert [(line["way"], line["shot"]) for line in facts["table"]] == [(1, 1), (2, 1), (1, 5)]


def test_folds_are_averaged_and_a_part_is_called_a_part(tmp_path: Path) -> None:
    images = {f"2007_{n:06}": labels({n % 20 + 1: HALF}) for n in range(40)}
    voc = make_voc(tmp_path / "VOC2012", {"val": images, "train": images})
    where = ["--root", voc, "--episodes", 2, *EVAL]
    whole = run("eval", "voc", *where, "--fold", "all", "-o", "all")
    assert "mean of 4 folds" in whole.stdout and "not a PASCAL-5i score" in whole.stdout
    table = json.loads(Path("all/results.json").read_text())
    mean = sum(one["miou"] for one in table["runs"].values()) / 4
    assert table["table"][0]["miou"] == pytest.approx(mean)
    few = run("eval", "voc", *where, "--shot", 1, "--fold", "1", "-o", "one")
    assert "fold 1" in few.stdout
    with pytest.raises(DatasetError, match="drop_small"):
        run_raising("eval", "voc", *where, "--shot", 5, "--strict", "-o", "strict")


def test_episodes_from_a_file(root: Path) -> None:
    run("eval", "folder", "--root", root, "--episodes", 3, "--seed", 7, "-o", "a", *EVAL)
    run("eval", "folder", "--root", root, "--episodes-from", "a/1way-1shot/episodes.csv", "-o", "b", *EVAL)
    a, b = (json.loads(Path(name, "results.json").read_text())["runs"]["1way-1shot"] for name in "ab")
    assert a["rows_sha256"] == b["rows_sha256"]
    with pytest.raises(SettingError, match="--way"):
        run_raising("eval", "folder", "--root", root, "--episodes-from", "x.csv", "--way", 2, "-o", "c", *EVAL)


def test_compare_pairs_runs(root: Path) -> None:
    run("eval", "folder", "--root", root, "--episodes", 6, "-o", "edges", *EVAL)
    run("eval", "folder", "--root", root, "--episodes", 6, "-o", "none", *EVAL, "--refiner", "none")
    run("eval", "folder", "--root", root, "--episodes", 6, "--seed", 3, "-o", "other", *EVAL)
    found = run("compare", "edges", "none", "-o", "compare.html")
    assert "1way-1shot" in found.stdout and "verdict" in found.stdout
    assert "refiner edges -&gt; none" in Path("compare.html").read_text()
    run("compare", "edges", "none", "-o", "compare.html")  # its own page is replaced
    Path("notes.html").write_text("mine")
    with pytest.raises(SettingError, match=r"notes\.html: a file that kshot did not make"):
        run_raising("compare", "edges", "none", "-o", "notes.html")
    assert Path("notes.html").read_text() == "mine"
    run("compare", "edges", "none", "-o", "notes.html", "--overwrite")
    assert "kshot" in Path("notes.html").read_text()
    pairs = json.loads(run("compare", "edges", "none", "--json").stdout)
    assert pairs[1]["low"] <= pairs[1]["difference"] <= pairs[1]["high"]
    with pytest.raises(SettingError, match="seed is 0 and 3"):
        run_raising("compare", "edges", "other")
    run("compare", "edges", code=2)


def test_datasets_lists_what_is_there(root: Path, tmp_path: Path) -> None:
    (root / "disc" / "alone.jpg").write_bytes((root / "disc" / "disc0.jpg").read_bytes())
    found = run("datasets", tmp_path)
    assert "discs (folder)" in found.stdout and "disc: 6 images, 6 pairs" in found.stdout
    assert "missing: 1" in found.stdout
    assert json.loads(run("datasets", root, "--json").stdout)[0]["name"] == "discs"
    (tmp_path / "nothing").mkdir()
    with pytest.raises(DatasetError, match="looked for"):
        run_raising("datasets", tmp_path / "nothing")


@pytest.mark.parametrize(("option", "value"), [("--way", "a"), ("--shot", "0"), ("--fold", "x"), ("--fold", "all")])
def test_wrong_numbers_are_refused(root: Path, option: str, value: str) -> None:
    with pytest.raises(SettingError, match=r"whole numbers|no folds"):
        run_raising("eval", "folder", "--root", root, option, value, "-o", "out", *EVAL)


def run_raising(*arguments: object) -> None:
    """A command that fails; its error comes through, as `main` would see it."""
    from typer.testing import CliRunner

    from kshot.cli import app

    CliRunner().invoke(app, [str(a) for a in arguments], catch_exceptions=False)


@pytest.mark.parametrize("year", [2014, 2017])
def test_the_full_layout_of_coco(tmp_path: Path, year: int) -> None:
    root = whole_coco(tmp_path / "coco", year)
    listed = run("datasets", root).stdout
    assert "coco" in listed and "80" in listed
    run("eval", "coco", "--root", root, "--fold", "0", "--episodes", 6, "-o", "out", *EVAL)
    facts = json.loads(Path("out/results.json").read_text())
    (setting,) = facts["runs"]
    rows = [json.loads(line) for line in next(Path("out", setting).glob("rows-*.jsonl")).read_text().splitlines()]
    # Fold 0 of COCO-20i tests the classes f + 4v, 0-based: ids 1, 5, 9, ...
    assert len(rows) == 6 and all(row["table"][1] % 4 == 1 for row in rows)


def test_the_full_layout_of_fss1000(tmp_path: Path) -> None:
    root = make_fss(tmp_path / "fss", 20)
    assert "fss" in run("datasets", root).stdout
    run("eval", "fss1000", "--root", root, "--episodes", 5, "--shot", "1,5", "-o", "out", *EVAL)
    assert len(json.loads(Path("out/results.json").read_text())["runs"]) == 2
    assert "<svg" in Path("out/report.html").read_text()
