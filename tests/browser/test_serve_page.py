"""The page of `kshot serve` in a real browser, on real photographs: what people do, see, and do not lose."""

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from playwright.sync_api import Browser, Page, Route, expect
from pycocotools.coco import COCO

from kshot.demo.photos import read_truth
from kshot.io.images import read_mask
from tests.support.page_server import (
    COIN,
    COIN_IMAGE,
    COINS,
    Server,
    name_class,
    open_image,
    opened,
    place,
    serving,
)


def picture(page: Page, name: str) -> None:
    """Keep a screenshot where somebody wants to look at it."""
    folder = os.environ.get("KSHOT_SCREENSHOTS")
    if folder:
        page.screenshot(path=Path(folder) / f"{name}.png")


def asked(page: Page, address: str) -> dict[str, Any]:
    found: dict[str, Any] = page.evaluate("path => fetch(path).then((answer) => answer.json())", address)
    return found


def waited(page: Page, through: Callable[[], bool]) -> None:
    """Wait until something holds; the browser goes on meanwhile."""
    for _ in range(600):
        if through():
            return
        page.wait_for_timeout(100)
    raise TimeoutError


def idle(page: Page) -> None:
    waited(page, lambda: bool(asked(page, "/api/status")["idle"]))


def marks(page: Page, index: int = 0) -> int:
    return len(asked(page, f"/api/images/{index}")["marks"])


def click_coin(page: Page) -> None:
    open_image(page, "a.png")
    before = marks(page)
    page.mouse.click(*place(page, *COIN, COIN_IMAGE))
    waited(page, lambda: marks(page) == before + 1)


def test_the_whole_job_from_a_name_to_a_coco_file(page: Page, tmp_path: Path) -> None:
    picture(page, "welcome")
    name_class(page, "coin")
    picture(page, "first-image")
    open_image(page, "a.png")
    page.click("#tools [data-tool=brush]")
    truth = read_truth("coins")
    for y, x in [(66, 46), (66, 105), (66, 162), (122, 45), (120, 105), (118, 160)]:
        if truth[y, x]:
            page.mouse.move(*place(page, x - 8, y, COIN_IMAGE))
            page.mouse.down()
            page.mouse.move(*place(page, x + 8, y, COIN_IMAGE), steps=4)
            page.mouse.up()
    waited(page, lambda: marks(page) == 6)
    idle(page)
    assert asked(page, "/api/status")["problem"] == ""
    picture(page, "others-follow")
    for name in ("b", "c", "d"):
        x0, y0, x1, y1 = COINS[name]
        found, wanted = read_mask(tmp_path / "out" / "masks" / f"{name}.png") == 1, truth[y0:y1, x0:x1] == 1
        assert (found & wanted).sum() / (found | wanted).sum() > 0.3, name
    page.click("#accept")
    expect(page.locator("#progress-text")).to_contain_text("1 of 6 decided")
    for decided in range(2, 7):
        expect(page.locator("#accept")).to_be_enabled(timeout=60_000)
        animal = page.text_content("#name") in {"chelsea.png", "rocket.png"}
        page.click("#reject" if animal else "#accept")
        expect(page.locator("#progress-text")).to_contain_text(f"{decided} of 6 decided", timeout=60_000)
    assert len(list((tmp_path / "out" / "accepted").iterdir())) == 6
    idle(page)
    page.click("#open-export")
    page.check("#formats input[value=coco]", force=True)
    assert page.text_content("#command") == f"kshot convert {tmp_path}/out --to coco -o {tmp_path}/out/export/coco"
    picture(page, "export")
    page.click("#do-export")
    expect(page.locator("#exported")).to_contain_text("6 images written")
    coco = COCO(str(tmp_path / "out" / "export" / "coco" / "coco.json"))
    assert {image["file_name"] for image in coco.imgs.values()} >= {"a.png", "rocket.png"}
    assert {coco.imgs[one["image_id"]]["file_name"] for one in coco.anns.values()} <= {
        "a.png",
        "b.png",
        "c.png",
        "d.png",
    }
    assert page.problems == []  # type: ignore[attr-defined]


def test_undo_goes_over_strokes_and_over_what_the_others_made_of_them(page: Page, tmp_path: Path) -> None:
    name_class(page, "coin")
    click_coin(page)
    idle(page)
    expect(page.locator(".tile[data-state=todo]")).to_have_count(0)
    page.keyboard.press("Control+z")
    expect(page.locator(".tile[data-state=todo]")).to_have_count(6)
    assert marks(page) == 0
    page.keyboard.press("Control+Shift+Z")
    idle(page)
    expect(page.locator(".tile[data-state=todo]")).to_have_count(0)
    assert marks(page) == 1
    assert page.problems == []  # type: ignore[attr-defined]


def test_the_keyboard_alone_is_enough(page: Page, tmp_path: Path) -> None:
    page.keyboard.type("coin")  # the field has the focus
    page.keyboard.press("Enter")
    page.wait_for_selector("#classes li")
    first = page.text_content("#name")
    for key in ("Shift+ArrowLeft", "Shift+ArrowUp", "p"):
        page.keyboard.press(key)
    expect(page.locator("#facts")).to_contain_text("drawn on")
    picture(page, "keyboard")
    page.keyboard.press("Enter")
    expect(page.locator("#progress-text")).to_contain_text("1 of 6 decided")
    expect(page.locator("#name")).not_to_have_text(first or "")
    expect(page.locator("#reject")).to_be_enabled(timeout=60_000)  # the next image is there
    page.keyboard.press("x")
    expect(page.locator("#progress-text")).to_contain_text("2 of 6 decided")
    page.keyboard.press("?")
    expect(page.locator("#help")).to_be_visible()
    picture(page, "help")
    page.keyboard.press("Escape")
    page.keyboard.press("n")
    page.keyboard.type("lamp")
    page.keyboard.press("Enter")
    expect(page.locator("#classes li")).to_have_count(2)
    # The list may come with news from the server before the answer does, which makes the new class the current one.
    expect(page.locator("#classes li").last).to_have_attribute("aria-current", "true")
    page.keyboard.press("1")
    expect(page.locator("#classes li").first).to_have_attribute("aria-current", "true")
    before = page.text_content("#name")
    page.keyboard.press("j")
    expect(page.locator("#name")).not_to_have_text(before or "")
    for key, tool in (("b", "brush"), ("e", "eraser"), ("v", "point")):
        page.keyboard.press(key)
        expect(page.locator(f"#tools [data-tool={tool}]")).to_have_attribute("aria-pressed", "true")
    page.keyboard.press("Control+f")
    page.keyboard.type("rocket")
    expect(page.locator(".tile")).to_have_count(1)
    assert page.problems == []  # type: ignore[attr-defined]


CONTRAST = """() => {
    const light = (text) => {
        const [r, g, b] = text.match(/[\\d.]+/g).slice(0, 3).map((v) => v / 255)
            .map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4));
        return 0.2126 * r + 0.7152 * g + 0.0722 * b;
    };
    const ground = (each) => {
        for (; each; each = each.parentElement) {
            const colour = getComputedStyle(each).backgroundColor;
            if (!/, 0\\)|transparent/.test(colour)) return colour;
        }
        return "rgb(255, 255, 255)";
    };
    const found = [];
    for (const each of document.querySelectorAll("body *")) {
        const words = [...each.childNodes].some((node) => node.nodeType === 3 && node.textContent.trim());
        if (!words || !each.checkVisibility() || each.disabled || each.closest("svg, option")) continue;
        const [a, b] = [light(getComputedStyle(each).color), light(ground(each))].sort((x, y) => y - x);
        if ((a + 0.05) / (b + 0.05) < 4.5) found.push(`${each.tagName} ${each.textContent.trim().slice(0, 30)}`);
    }
    return found;
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_can_be_read_in_light_and_dark_in_small_and_large_windows(
    chromium: Browser, server: Server, scheme: str
) -> None:
    context = chromium.new_context(color_scheme=scheme, viewport={"width": 1360, "height": 860})  # type: ignore[arg-type]
    page = opened(context.new_page(), server.address)
    if page.locator("#welcome").is_visible():
        name_class(page, "coin")
    click_coin(page)
    idle(page)
    for width, height in ((1920, 1080), (1360, 860), (1000, 700), (800, 700), (390, 780)):
        page.set_viewport_size({"width": width, "height": height})
        page.wait_for_timeout(300)
        picture(page, f"{scheme}-{width}")
        assert page.evaluate(CONTRAST) == []
        wider = page.evaluate("document.documentElement.scrollWidth > innerWidth")
        assert not wider, (width, "scrolls to the side")
        for button in ("#accept", "#undo", "#canvas"):
            box = page.locator(button).bounding_box()
            assert box and box["x"] >= 0 and box["x"] + box["width"] <= width and box["y"] + box["height"] <= height
    context.close()


def test_a_broken_image_says_why_and_costs_itself_alone(chromium: Browser, images: Path, tmp_path: Path) -> None:
    (images / "broken.png").write_bytes(b"this is no image")
    (images / "<img src=x onerror=window.harmed=1>.png").write_bytes((images / "a.png").read_bytes())
    with serving(images, tmp_path / "out") as server:
        page = opened(chromium.new_page(), server.address)
        name_class(page, "coin")
        open_image(page, "a.png")
        page.mouse.click(*place(page, *COIN, COIN_IMAGE))
        expect(page.locator(".tile[data-state=failed] .reason")).to_contain_text("not an image", timeout=60_000)
        page.locator(".tile[data-state=failed]").click()
        expect(page.locator("#broken")).to_contain_text("not an image")
        expect(page.locator("#accept")).to_be_disabled()
        picture(page, "broken")
        assert page.evaluate("window.harmed") is None
        page.context.close()


def test_a_killed_server_loses_nothing_and_the_page_goes_on_with_the_next(
    chromium: Browser, images: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    with serving(images, out) as server:
        page = opened(chromium.new_page(), server.address)
        name_class(page, "coin")
        click_coin(page)
        idle(page)
        page.click("#accept")
        expect(page.locator("#progress-text")).to_contain_text("1 of 6 decided")
        open_image(page, "b.png")
        page.mouse.click(*place(page, 40, 60, COIN_IMAGE))
        waited(page, lambda: marks(page, 1) == 1)
        server.end(signal.SIGKILL)
        expect(page.locator("#progress-text")).to_contain_text("does not answer", timeout=30_000)
        accepted = (out / "accepted" / "a.png").read_bytes()
        port = server.address.rsplit(":", 1)[1].strip("/")
    with serving(images, out, "--port", port):
        expect(page.locator("#progress-text")).to_contain_text("1 of 6 decided", timeout=60_000)
        assert (out / "accepted" / "a.png").read_bytes() == accepted
        assert marks(page, 1) == 1
        page.context.close()


def test_nothing_is_drawn_on_an_image_that_is_not_there_yet(page: Page) -> None:
    """The old image is still seen then, and a click on it would be a mark in the new one."""
    name_class(page, "coin")
    open_image(page, "a.png")
    held: list[Route] = []
    page.route("**/api/images/1/image?side=1600", lambda route: held.append(route))
    page.click('.tile[aria-label^="b.png:"]')
    waited(page, lambda: bool(held))
    expect(page.locator("#name")).to_have_text("b.png")
    page.mouse.click(*place(page, *COIN, COIN_IMAGE))
    page.locator("#canvas").press("p")
    # A press that begins on the old image and ends on the new one is none either.
    page.mouse.down()
    for route in held:
        route.continue_()
    page.wait_for_selector("#canvas[aria-busy=false]")
    page.mouse.up()
    page.mouse.click(*place(page, 40, 60, COIN_IMAGE))
    waited(page, lambda: marks(page, 1) == 1)
    assert marks(page, 0) == 0
    assert page.problems == []  # type: ignore[attr-defined]


def test_two_windows_see_each_other_and_keep_their_own_steps(chromium: Browser, page: Page, server: Server) -> None:
    other = opened(chromium.new_context().new_page(), server.address)
    name_class(page, "coin")
    expect(other.locator("#classes li")).to_have_count(1)
    click_coin(page)
    open_image(other, "a.png")
    expect(other.locator("#facts")).to_contain_text("drawn on")
    expect(other.locator("#undo")).to_be_disabled()
    expect(page.locator("#undo")).to_be_enabled()
    other.click("#accept")
    expect(page.locator("#progress-text")).to_contain_text("1 of 6 decided")
    page.keyboard.press("Control+z")
    expect(page.locator(".toast")).to_contain_text("another window")
    other.context.close()


def test_the_page_asks_nobody_but_its_server(page: Page, server: Server) -> None:
    entries = page.evaluate("performance.getEntriesByType('resource').map((each) => each.name)")
    assert entries and all(entry.startswith((server.address, "blob:")) for entry in entries)
    size = sum(len(path.read_bytes()) for path in Path("src/kshot/serve/page").iterdir())
    assert size < 150_000


def test_the_threshold_moves_the_mask_without_asking_the_model(page: Page) -> None:
    name_class(page, "coin")
    click_coin(page)
    idle(page)
    shown, asked_for = page.evaluate(PAINTED), []
    # What runs the model is posted; thumbnails may still come in, and the page says what is looked at (`look`).
    page.on("request", lambda request: asked_for.append((request.method, request.url.rsplit("/", 1)[1])))
    page.evaluate("t = document.getElementById('threshold'); t.value = 95; t.dispatchEvent(new Event('input')); 0")
    page.wait_for_timeout(100)
    assert page.evaluate(PAINTED) < shown
    assert {one for one in asked_for if one[0] != "GET"} <= {("POST", "look")}


PAINTED = """() => { const canvas = document.getElementById('mask'), pen = canvas.getContext('2d');
    const { data } = pen.getImageData(0, 0, canvas.width, canvas.height);
    let count = 0; for (let i = 3; i < data.length; i += 4) count += data[i] > 0; return count; }"""


def test_masks_on_the_screen_are_those_on_the_disk(page: Page, tmp_path: Path) -> None:
    name_class(page, "coin")
    click_coin(page)
    page.click("#accept")
    expect(page.locator("#progress-text")).to_contain_text("1 of 6 decided")
    found = asked(page, "/api/images/0")["areas"]["coin"]
    mask = read_mask(tmp_path / "out" / "accepted" / "a.png")
    assert np.isclose(found, (mask == 1).mean())
