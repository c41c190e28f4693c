"""How messages count."""

import pytest

from kshot.errors import plural


@pytest.mark.parametrize(
    ("count", "words", "told"),
    [
        (1, ("image",), "1 image"),
        (0, ("image",), "0 images"),
        (12, ("image",), "12 images"),
        (1, ("class", "classes"), "1 class"),
        (2, ("class", "classes"), "2 classes"),
    ],
)
def test_a_count_has_its_word(count: int, words: tuple[str, ...], told: str) -> None:
    assert plural(count, *words) == told
