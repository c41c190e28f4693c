"""Fingers, a pen, a large image and a full disk on the page of `kshot serve`, in a real browser."""

import resource
from collections.abc import Iterator

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Browser, CDPSession, Page, expect

from tests.support.page_server import (
    COIN,
    COIN_IMAGE,
    Server,
    name_class,
    open_image,
    opened,
    photographs,
    place,
    serving,
)

LONG = 3000


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("hands")
    images = photographs(folder / "photos")
    pixels = np.random.default_rng(0).integers(0, 256, (LONG // 2, LONG, 3), np.uint8)
    Image.fromarray(pixels).save(images / "large.tif")
    with serving(images, folder / "out") as started:
        yield started


@pytest.fixture
def page(chromium: Browser, server: Server) -> Iterator[Page]:
    context = chromium.new_context(viewport={"width": 1000, "height": 760}, has_touch=True)
    page = opened(context.new_page(), server.address)
    if page.locator("#welcome").is_visible():
        name_class(page, "coin")
    open_image(page, "a.png")
    expect(page.locator("#accept")).to_be_enabled()
    yield page
    context.close()


def marks(page: Page) -> list[dict[str, object]]:
    script = """async () => {
        const asked = async (path) => (await fetch(path)).json();
        const { images } = await asked("/api/images?name=a.png");
        const { index } = images.find((each) => each.name === "a.png"); // chelsea.png fits, too
        return (await asked(`/api/images/${index}`)).marks;
    }"""
    found: list[dict[str, object]] = page.evaluate(script)
    return found


def touch(session: CDPSession, kind: str, *points: tuple[float, float]) -> None:
    at = [{"x": x, "y": y, "id": number} for number, (x, y) in enumerate(points)]
    session.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": at})


def test_a_finger_marks_and_two_fingers_zoom(page: Page) -> None:
    before = len(marks(page))
    x, y = place(page, *COIN, COIN_IMAGE)
    page.touchscreen.tap(x, y)
    expect(page.locator("#facts")).to_contain_text("drawn on")
    assert [mark["kind"] for mark in marks(page)[before:]] == ["click"]
    hand = page.context.new_cdp_session(page)
    touch(hand, "touchStart", (x - 20, y), (x + 20, y))
    for step in range(1, 6):
        touch(hand, "touchMove", (x - 20 - 12 * step, y), (x + 20 + 12 * step, y))
    touch(hand, "touchEnd")
    page.wait_for_timeout(300)
    assert len(marks(page)) == before + 1  # a pinch draws nothing
    page.touchscreen.tap(x, y)
    page.wait_for_function("() => performance.getEntriesByName('kshot-stroke').length > 1")
    first, second = (mark["x"] for mark in marks(page)[before:])
    assert abs(float(str(first)) - float(str(second))) < 6  # zoomed about the fingers' middle


def test_a_pen_paints_a_line(page: Page) -> None:
    before = len(marks(page))
    page.keyboard.press("b")
    x, y = place(page, *COIN, COIN_IMAGE)
    session = page.context.new_cdp_session(page)
    for kind, by in (("mousePressed", 0), ("mouseMoved", 10), ("mouseMoved", 20), ("mouseReleased", 20)):
        event = {
            "type": kind,
            "x": x + by,
            "y": y,
            "button": "left",
            "buttons": 1,
            "clickCount": 1,
            "pointerType": "pen",
        }
        session.send("Input.dispatchMouseEvent", event)
    page.wait_for_function("() => performance.getEntriesByName('kshot-stroke').length > 0")
    (stroke,) = marks(page)[before:]
    assert stroke["kind"] == "stroke" and stroke["on"]
    page.keyboard.press("v")


def test_a_large_image_gets_sharper_where_one_zooms_in(page: Page) -> None:
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url.rsplit("/", 1)[1]))
    page.fill("#search", "large")  # its tile may lie below what the gallery shows
    open_image(page, "large.tif")
    page.fill("#search", "")
    page.locator("#search").blur()
    expect(page.locator("#accept")).to_be_enabled(timeout=60_000)
    for _ in range(8):
        page.keyboard.press("+")
    page.wait_for_timeout(1500)
    assert any(one.startswith("image?side=1600") for one in asked)
    assert any(one.startswith("image?side=4096") for one in asked)


def test_a_full_disk_is_said_on_the_page_and_nothing_is_lost(page: Page, server: Server) -> None:
    before = marks(page)
    limits = resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, (0, limits[1]))  # no file may grow
    try:
        page.mouse.click(*place(page, *COIN, COIN_IMAGE))
        expect(page.locator(".toast").first).to_contain_text("cannot be written")
        assert marks(page) == before
    finally:
        resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, limits)
    page.mouse.click(*place(page, *COIN, COIN_IMAGE))
    page.wait_for_function("() => performance.getEntriesByName('kshot-stroke').length > 0")
    assert len(marks(page)) == len(before) + 1
