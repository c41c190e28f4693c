"""CSV files as spreadsheets see them, and as kshot reads them again."""

import csv
import io

from hypothesis import example, given
from hypothesis import strategies as st

from kshot.io.csv_rows import csv_rows, csv_text

NAMES = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=8)


def test_a_formula_is_a_text_and_a_number_a_number() -> None:
    names = ["=1+1", "+a", "-b", "@c", "\td", "\re", "'f", "a=b", ""]
    (row,) = csv.reader(io.StringIO(csv_text([[*names, -3, 0.5]]), newline=""))
    assert row == ["'=1+1", "'+a", "'-b", "'@c", "'\td", "'\re", "''f", "a=b", "", "-3", "0.5"]
    assert csv_text([["a", -3]]) == "a,-3\n"


@given(st.lists(st.lists(NAMES, min_size=2, max_size=3), max_size=3))
@example([["''=", "'"], ["\r\n", "\n"]])
def test_every_text_comes_back(rows: list[list[str]]) -> None:
    assert csv_rows(csv_text(rows)) == rows
