"""The page of `kshot serve` in a real browser: what goes wrong costs itself alone, and is said."""

from pathlib import Path

import numpy as np
from PIL import Image
from playwright.sync_api import Browser, Page, expect

from tests.support.page_server import (
    COIN,
    COIN_IMAGE,
    answered,
    name_class,
    open_image,
    opened,
    place,
    serving,
)

MARKUP = "<img src=x onerror=window.harmed=1> coin"

# Ten thousand moves of the mouse, in rows from the first corner to the second; the mouse itself takes minutes.
MOVE = """([left, top, right, bottom]) => {
    const target = document.elementFromPoint(left, top);
    for (let n = 0; n < 10000; n++) {
        const row = Math.floor(n / 1000), along = (n % 1000) / 999;
        const x = left + (right - left) * (row % 2 ? 1 - along : along), y = top + (bottom - top) * row / 9;
        target.dispatchEvent(new PointerEvent("pointermove",
            {bubbles: true, pointerId: 1, pointerType: "mouse", buttons: 1, clientX: x, clientY: y}));
    }
}"""


def test_a_stroke_of_ten_thousand_points_is_one_mark(page: Page) -> None:
    name_class(page, "coin")
    open_image(page, "a.png")
    page.click("#tools [data-tool=brush]")
    page.mouse.move(*place(page, 5, 5, COIN_IMAGE))
    page.mouse.down()
    page.evaluate(MOVE, [*place(page, 5, 5, COIN_IMAGE), *place(page, 200, 113, COIN_IMAGE)])
    page.mouse.move(*place(page, 200, 113, COIN_IMAGE))
    page.mouse.up()
    (mark,) = answered(page, "/api/images/0", lambda image: image["marks"])["marks"]
    assert 10 < len(mark["points"]) <= 4000
    assert {round(max(column)) for column in zip(*mark["points"], strict=True)} == {200, 113}
    assert page.problems == []  # type: ignore[attr-defined]


def test_a_class_name_of_markup_stays_text(page: Page) -> None:
    name_class(page, MARKUP)
    open_image(page, "a.png")
    page.mouse.click(*place(page, *COIN, COIN_IMAGE))
    expect(page.get_by_role("textbox", name="Class 1")).to_have_value(MARKUP)
    answered(page, "/api/status", lambda status: status["idle"])
    assert page.evaluate("window.harmed") is None
    assert page.evaluate("document.querySelectorAll('img[src=x]').length") == 0


def test_an_image_that_vanishes_while_the_page_is_open_costs_itself_alone(page: Page, images: Path) -> None:
    name_class(page, "coin")
    (images / "d.png").unlink()
    open_image(page, "a.png")
    page.mouse.click(*place(page, *COIN, COIN_IMAGE))
    expect(page.locator('.tile[aria-label^="d.png"][data-state=failed] .reason')).to_be_visible(timeout=60_000)
    page.click('.tile[aria-label^="d.png"]')
    expect(page.locator("#broken")).to_be_visible()
    expect(page.locator("#accept")).to_be_disabled()
    open_image(page, "b.png")
    expect(page.locator("#broken")).to_be_hidden()
    expect(page.locator("#accept")).to_be_enabled(timeout=60_000)


def test_a_mask_file_of_another_size_does_not_stop_the_page(chromium: Browser, images: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with serving(images, out) as server:
        page = opened(chromium.new_page(), server.address)
        name_class(page, "coin")
        open_image(page, "a.png")
        page.mouse.click(*place(page, *COIN, COIN_IMAGE))
        answered(page, "/api/status", lambda status: status["idle"])
        page.click("#accept")
        expect(page.locator("#progress-text")).to_contain_text("1 of 6 decided")
        page.context.close()
    Image.fromarray(np.ones((7, 9), np.uint8)).save(out / "masks" / "b.png")
    with serving(images, out) as server:
        page = opened(chromium.new_page(), server.address)
        open_image(page, "b.png")
        expect(page.locator("#accept")).to_be_enabled(timeout=60_000)
        page.mouse.click(*place(page, 40, 60, COIN_IMAGE))
        assert len(answered(page, "/api/images/1", lambda image: image["marks"])["marks"]) == 1
        page.context.close()
