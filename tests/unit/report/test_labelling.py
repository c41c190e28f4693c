"""The report carries everything itself, escapes everything, and survives what runs leave behind."""

import json
import logging
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import kshot
from kshot.batch import label_folder
from kshot.errors import SettingError
from kshot.report import save_supports, write_report
from kshot.report.rendering import percent, script_json
from kshot.report.run import read_run
from kshot.report.supports import read_supports
from kshot.report.thumbnails import drawn_mask, score_map, shrunk, thumbnail
from kshot.types import Shot, SupportSet
from tests.support.drawing import draw

EVIL_CLASS = '<u>disc</u> & "it\'s"'
EVIL_NAME = "<img src=x onerror=alert(1)> & '100%' #1?.jpg"


class Page(HTMLParser):
    """What a browser would see: tags, addresses, text, and the JSON of the scripts."""

    def __init__(self, path: Path):
        super().__init__()
        self.tags: list[str] = []
        self.addresses: list[str] = []
        self.text = ""
        self.scripts: dict[str, str] = {}
        self._inside: str | None = None
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        named = dict(attrs)
        self.tags.append(tag)
        self.addresses += [value or "" for name, value in attrs if name in {"src", "href", "srcset", "action"}]
        self._inside = named.get("id") or "code" if tag == "script" else None

    def handle_endtag(self, tag: str) -> None:
        self._inside = None

    def handle_data(self, data: str) -> None:
        if self._inside:
            self.scripts[self._inside] = self.scripts.get(self._inside, "") + data
        else:
            self.text += data

    @property
    def run(self) -> dict[str, Any]:
        value: dict[str, Any] = json.loads(self.scripts["run"])
        return value

    @property
    def embeds(self) -> list[list[str | None]]:
        value: list[list[str | None]] = json.loads(self.scripts["embeds"])
        return value


@pytest.fixture(scope="module")
def labelled(tmp_path_factory: pytest.TempPathFactory, toy: kshot.Segmenter) -> Path:
    """A finished run over three images, an empty one and a broken one, with names that mean harm."""
    root = tmp_path_factory.mktemp("report")
    images, out = root / "images", root / "out <b>"
    (images / "sub").mkdir(parents=True)
    for seed, name in ((3, "a.jpg"), (4, "sub/b.png"), (5, EVIL_NAME)):
        Image.fromarray(draw(seed)[0]).save(images / name)
    Image.fromarray(draw(6, disc=False)[0]).save(images / "none.jpg", quality=95)
    (images / "</script><script>alert(2)".replace("/", "∕")).with_suffix(".jpg").write_bytes(b"broken")
    support = SupportSet([Shot(*draw(seed), label=EVIL_CLASS) for seed in (1, 2)])
    task = toy.fit(support)
    notes = {"command": "kshot label <support> 'images'", "images": str(images)}
    label_folder(toy, task, images, out, formats=("png", "overlay", "scores"), notes=notes)
    save_supports(out, support, task, toy.shot_reader)
    write_report(out)
    return out


@pytest.fixture
def copy(labelled: Path, tmp_path: Path) -> Iterator[Path]:
    """A folder with the run's manifest and settings that a test may spoil."""
    out = tmp_path / "out"
    out.mkdir()
    for path in labelled.iterdir():
        if path.is_dir():
            (out / path.name).symlink_to(path)
        else:
            (out / path.name).write_bytes(path.read_bytes())
    yield out


def _page(out: Path, embed_limit: int = 400) -> Page:
    return Page(write_report(out, embed_limit=embed_limit))


def test_says_how_many_images_objects_empty_and_failed(labelled: Path) -> None:
    run = read_run(labelled)
    assert run.counts == {"done": 3, "empty": 1, "failed": 1}
    assert [line.images for line in run.figures] == [3]
    assert "in 3 of 5 images" in " ".join(Page(labelled / "report.html").text.split())


def test_needs_nothing_beside_it(labelled: Path) -> None:
    page = Page(labelled / "report.html")
    assert all(address.startswith("data:image/jpeg;base64,") for address in page.addresses)
    assert "link" not in page.tags
    assert all(all(part and part.startswith("data:image/jpeg") for part in three) for three in page.embeds)
    assert len(page.embeds) == 4  # the broken image has nothing to show


def test_names_of_classes_and_files_are_text_and_never_markup(labelled: Path) -> None:
    page = Page(labelled / "report.html")
    assert "u" not in page.tags
    assert "b" not in page.tags
    assert page.tags.count("script") == 3
    assert EVIL_CLASS in page.text
    assert page.run["classes"][0]["name"] == EVIL_CLASS
    assert EVIL_NAME in page.run["names"]
    assert not set("<>&") & set(page.scripts["run"])
    assert json.loads(script_json({"</script>": "<!-- \u2028"})) == {"</script>": "<!-- \u2028"}


def test_shows_failures_with_their_reasons_settings_and_the_command(labelled: Path) -> None:
    page = Page(labelled / "report.html")
    (reason,) = page.run["reasons"].values()
    assert "not an image" in reason
    assert reason in page.text
    assert "kshot label <support> 'images'" in page.text
    assert "toy" in page.text


def test_carries_the_most_doubtful_and_links_to_the_rest(copy: Path) -> None:
    page = _page(copy, embed_limit=1)
    (inside,) = page.run["embedded"]
    assert page.run["uncertainty"][int(inside)] == max(page.run["uncertainty"])
    assert len(page.embeds) == 1
    before, after = page.run["rules"]["overlay"]
    letters = zip(page.run["names"], page.run["status"], strict=True)
    stems = [name[:-4] for name, letter in letters if letter != "f"]
    assert len(stems) == 4 and all((copy / f"{before}{stem}{after}").is_file() for stem in stems)


def test_a_run_without_overlays_shows_its_masks_on_the_pictures(copy: Path) -> None:
    lines = [json.loads(line) for line in (copy / "manifest.jsonl").read_text().splitlines()]
    for line in lines:
        line.get("outputs", {}).pop("overlay", None)
        line.get("outputs", {}).pop("scores", None)
    (copy / "manifest.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert all(overlay and picture and heat is None for overlay, picture, heat in _page(copy).embeds)


def test_survives_what_a_crash_leaves(copy: Path, caplog: pytest.LogCaptureFixture) -> None:
    manifest = copy / "manifest.jsonl"
    manifest.write_text(manifest.read_text() + '{"input": "cut', encoding="utf-8")
    (copy / "settings.json").write_text("{", encoding="utf-8")
    page = _page(copy)
    assert len(page.run["names"]) == 5
    assert page.run["classes"][0]["name"] == EVIL_CLASS  # known from the records
    assert page.run["images"] is None
    assert "damaged line" in caplog.text


def test_an_empty_manifest_and_a_name_that_is_no_unicode(tmp_path: Path) -> None:
    (tmp_path / "manifest.jsonl").touch()
    assert _page(tmp_path).run["names"] == []
    record = {"input": "\udcff.jpg", "status": "failed", "reason": "why \udcfe"}
    (tmp_path / "manifest.jsonl").write_text(json.dumps(record) + "\n")
    assert _page(tmp_path).run["names"][0] == "\udcff.jpg"


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingError, match=r"no manifest\.jsonl"):
        write_report(tmp_path)


def test_a_hundred_images_get_a_figure_of_their_doubt(tmp_path: Path) -> None:
    facts = {"disc": {"present": 0.9, "pixels": 10, "objects": 1, "score": 0.8}}
    common = {"status": "done", "size_hw": [10, 10], "outputs": {}, "classes": facts}
    lines = [json.dumps({"input": f"{i}.jpg", "uncertainty": i / 100, **common}) for i in range(100)]
    (tmp_path / "manifest.jsonl").write_text("\n".join(lines))
    page = _page(tmp_path)
    assert page.tags.count("rect") == 20 + 1  # one is the mark's
    assert read_run(tmp_path).figures[0].area == 0.1


def test_supports_show_what_was_marked_and_belong_to_the_run(labelled: Path) -> None:
    settings = json.loads((labelled / "settings.json").read_text())
    lines = read_supports(labelled, settings["task"])
    assert [line["marks"] for line in lines] == [[{"class": EVIL_CLASS, "prompt": "mask"}]] * 2
    picture, mask = draw(1)
    drawn = np.asarray(Image.open(labelled / lines[0]["overlay"]).resize(mask.shape[::-1])).astype(int)
    changed = np.abs(drawn - picture).sum(2) > 150
    assert changed[mask].mean() > 0.8
    assert changed[~mask].mean() < 0.1
    assert read_supports(labelled, "another task") == []


def test_supports_of_every_kind_are_drawn(tmp_path: Path, toy: kshot.Segmenter) -> None:
    picture, mask = draw(1)
    labels = np.where(mask, 7, 0).astype(np.uint8)
    labels[:20] = 255
    task = toy.fit([Shot(picture, mask=labels, label={7: "disc"})])
    marks = [
        Shot(picture, boxes=[[5, 5, 60, 60]], points=[[30, 30]], negative_points=[[9, 9]], label="disc"),
        Shot(picture, scribbles=[[[10, 10], [40, 50]]], negative_scribbles=[[[70, 70], [90, 80]]], label="disc"),
        Shot(picture, mask=labels, label={7: "disc"}),
        Shot(text="a disc", label="disc"),
    ]
    save_supports(tmp_path, SupportSet(marks), task, toy.shot_reader)
    line, words = read_supports(tmp_path, None)
    assert [mark["prompt"] for mark in line["marks"]] == ["boxes", "scribbles", "mask"]
    assert words["text"] == "a disc"
    drawn = np.asarray(Image.open(tmp_path / line["overlay"]))
    scale = drawn.shape[1] / picture.shape[1]
    assert drawn[: round(15 * scale), round(70 * scale) :].mean() < 0.6 * picture[:15, 70:].mean()  # ignored: dark


def test_broken_pictures_are_left_out_with_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"no")
    with caplog.at_level(logging.WARNING):
        assert thumbnail(broken, 64) is None
        assert score_map(broken, 64) is None
        assert drawn_mask(broken, None, ("a",), 64) is None
    assert caplog.text.count("left out of the report") == 3
    assert thumbnail(None, 64) is score_map(None, 64) is drawn_mask(None, None, (), 64) is None


def test_small_copies(tmp_path: Path) -> None:
    Image.new("RGB", (4000, 1000), "red").save(tmp_path / "wide.jpg")
    Image.new("L", (1, 900), 9).save(tmp_path / "thin.png")
    wide, thin = thumbnail(tmp_path / "wide.jpg", 320), thumbnail(tmp_path / "thin.png", 320)
    assert wide and wide.size == (320, 80)
    assert thin and thin.size == (1, 320)
    assert shrunk(Image.new("RGB", (3, 2)), 320).size == (3, 2)


@pytest.mark.parametrize(
    ("share", "text"), [(None, "–"), (0, "0%"), (0.042, "4.2%"), (0.0996, "10%"), (0.5, "50%"), (1, "100%")]
)
def test_shares_are_said_in_percent(share: float | None, text: str) -> None:
    assert percent(share) == text
