"""A real browser for pages that kshot writes."""

from collections.abc import Iterator

import pytest
from benchmarks.chromium import Tab, executable, opened
from playwright.sync_api import Browser

from tests.support.page_server import browser


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
