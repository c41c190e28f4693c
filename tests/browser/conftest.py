"""A real browser for pages that kshot writes."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from benchmarks.chromium import Tab, executable, opened
from playwright.sync_api import Browser, Page

from tests.support.page_server import Server, browser, photographs, serving
from tests.support.page_server import opened as opened_page


@pytest.fixture(scope="session")
def tab() -> Iterator[Tab]:
    if executable() is None:
        pytest.skip("needs Chromium or Chrome (apt-get install chromium)")
    with opened() as tab:
        yield tab


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    if executable() is None:
        pytest.skip("needs Chromium or Chrome (apt-get install chromium)")
    with browser() as started:
        yield started


@pytest.fixture
def images(tmp_path: Path) -> Path:
    return photographs(tmp_path / "photos")


@pytest.fixture
def server(images: Path, tmp_path: Path) -> Iterator[Server]:
    with serving(images, tmp_path / "out") as started:
        yield started


@pytest.fixture
def page(chromium: Browser, server: Server) -> Iterator[Page]:
    context = chromium.new_context(viewport={"width": 1360, "height": 860}, color_scheme="light")
    yield opened_page(context.new_page(), server.address)
    context.close()
