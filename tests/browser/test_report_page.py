"""What a person sees and does in report.html, in a real browser."""

import json
from pathlib import Path
from typing import Any

import pytest
from benchmarks.chromium import Tab
from PIL import Image

from kshot.report import write_report

COUNT = 300
EVIL = "<img src=x onerror=window.harmed=1>.jpg"


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images 0.jpg to 299.jpg: every tenth is empty, 5 and 15 failed; i.jpg has uncertainty i / 1000.

    cat is in even ones with i + 1 pixels, dog in multiples of 4. Overlays and pictures are red and blue.
    """
    out = tmp_path_factory.mktemp("run") / "out"
    for folder, colour in (("images", "blue"), ("out/overlays", "red")):
        (out.parent / folder).mkdir(parents=True)
        for name in (*(str(i) for i in range(COUNT)), Path(EVIL).stem):
            Image.new("RGB", (40, 30), colour).save(out.parent / folder / f"{name}.jpg")
    lines = [_record(i) for i in range(COUNT)] + [_record(0) | {"input": EVIL, "outputs": {}}]
    (out / "manifest.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    settings = {"classes": ["cat", "dog"], "images": str(out.parent / "images")}
    (out / "settings.json").write_text(json.dumps(settings))
    return out


def _record(i: int) -> dict[str, Any]:
    if i in {5, 15}:
        return {"input": f"{i}.jpg", "status": "failed", "reason": f"reason {i}"}
    pixels = {"cat": 0 if i % 2 or i % 10 == 0 else i + 1, "dog": 0 if i % 4 or i % 10 == 0 else 7}
    facts = {n: {"present": p and 0.9, "pixels": p, "objects": int(p > 0), "score": 0.5} for n, p in pixels.items()}
    return {
        "input": f"{i}.jpg",
        "status": "done" if any(pixels.values()) else "empty",
        "size_hw": [30, 40],
        "uncertainty": i / 1000,
        "outputs": {"png": f"masks/{i}.png", "overlay": f"overlays/{i}.jpg"},
        "classes": facts,
    }


@pytest.fixture
def page(tab: Tab, out: Path) -> Tab:
    tab.go(write_report(out, embed_limit=10).as_uri())
    return tab


def names(page: Tab) -> list[str]:
    found: list[str] = page.run("[...document.querySelectorAll('#grid .name')].map((each) => each.textContent)")
    return found


def change(tab: Tab, /, **values: object) -> None:
    for name, value in values.items():
        tab.run(f"{name}_ = document.getElementById('{name}'); {name}_.value = {json.dumps(str(value))}; 0")
        tab.run(f"{name}_.dispatchEvent(new Event('change')); 0")


def click(page: Tab, selector: str) -> None:
    page.run(f"document.querySelector({json.dumps(selector)}).click()")


def count(page: Tab) -> str:
    text: str = page.run("document.getElementById('count').textContent")
    return text


def test_draws_a_page_of_the_most_doubtful_and_turns_it(page: Tab) -> None:
    assert names(page)[:3] == ["299.jpg", "298.jpg", "297.jpg"]
    assert len(names(page)) == 48 and count(page) == "1–48 of 301 images"
    click(page, "#next")
    assert names(page)[0] == "251.jpg"
    change(page, page=7)
    assert names(page)[-2:] == ["5.jpg", "15.jpg"]  # failed ones have no uncertainty and go last
    change(page, page=999)
    assert page.run("document.getElementById('page').value") == "7"
    change(page, page="no")
    assert names(page)[0] == "299.jpg"


def test_orders_by_name_as_people_count_and_by_area(page: Tab) -> None:
    change(page, sort="name")
    assert names(page)[:4] == ["0.jpg", "1.jpg", "2.jpg", "3.jpg"]
    click(page, "#reverse")
    assert names(page)[:2] == [EVIL, "299.jpg"]
    click(page, "#reverse")
    change(page, sort="area")
    assert names(page)[:3] == ["296.jpg", "292.jpg", "298.jpg"]  # 297 + 7, 293 + 7, 299 pixels
    change(page, **{"class": 1})
    assert names(page)[:2] == ["4.jpg", "8.jpg"]  # all dogs are as large: by name


def test_filters_by_class_status_and_name(page: Tab) -> None:
    change(page, **{"class": 1})
    assert count(page).endswith("of 60 images (301 in all)")  # 75 multiples of 4, less 15 multiples of 20
    change(page, status="failed")
    assert names(page) == [] and count(page) == ""
    change(page, **{"class": -1})
    reasons = page.run("[...document.querySelectorAll('#grid .reason')].map((each) => each.textContent)")
    assert names(page) == ["5.jpg", "15.jpg"] and reasons == ["reason 5", "reason 15"]
    change(page, status="")
    page.run("s = document.getElementById('search'); s.value = '29'; s.dispatchEvent(new Event('input')); 0")
    page.run("new Promise((done) => setTimeout(done, 300))")
    assert names(page)[0] == "299.jpg" and count(page) == "1–13 of 13 images (301 in all)"  # 290..299, 29, 129, 229


def test_shows_picture_and_overlay_side_by_side_carried_or_from_their_files(page: Tab) -> None:
    click(page, ".views button[value=both]")
    sources = page.run("[...document.querySelectorAll('#grid .pane img')].map((each) => each.getAttribute('src'))")
    assert all(source.startswith("data:image/jpeg") for source in sources[:20])  # two of each of the ten
    assert sources[20:22] == ["../images/289.jpg", "overlays/289.jpg"]
    shown = """Promise.all([...document.querySelectorAll('#grid .pane img')].slice(18, 22).map(async (each) => {
        each.loading = 'eager'; await each.decode();
        return each.naturalWidth; }))"""
    assert page.run(shown) == [40, 40, 40, 40]


def test_opens_one_image_with_its_figures_and_steps_on(page: Tab) -> None:
    change(page, sort="name")
    page.run("document.querySelectorAll('#grid .shot')[4].click()")
    assert page.run("document.getElementById('large-name').textContent") == "4.jpg"
    rows = page.run("[...document.querySelectorAll('#large-rows tr')].map((each) => each.textContent)")
    assert rows == ["cat90%50%150.4%", "dog90%50%170.6%"]  # 5 and 7 of 1200 pixels
    links = page.run("[...document.querySelectorAll('#large-files a')].map((each) => each.getAttribute('href'))")
    assert links == ["masks/4.png", "overlays/4.jpg"]
    click(page, "#large-next")
    assert page.run("document.getElementById('large-facts').textContent") == "reason 5"
    click(page, "#large-close")


def test_a_name_of_markup_stays_text(page: Tab) -> None:
    change(page, sort="name")
    click(page, "#reverse")
    page.run("document.querySelector('#grid .shot').click()")
    assert page.run("document.getElementById('large-name').textContent") == EVIL
    assert page.run("window.harmed") is None


def test_asks_nobody_for_anything_and_throws_nothing(page: Tab) -> None:
    entries = page.run("performance.getEntriesByType('resource').map((each) => each.name)")
    assert all(entry.startswith(("data:", "file:")) for entry in entries)
    assert page.run("document.querySelectorAll('script[src], link').length") == 0
