"""Columns of a run's records: nothing is lost on the way to the page."""

import re
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from kshot.report.columns import columns_of, natural
from kshot.report.run import Run


def record(name: str, outputs: dict[str, str], **more: Any) -> dict[str, Any]:
    facts = {"cat": {"present": 0.1234, "pixels": 5, "objects": 2, "score": 0.5}}
    return {"input": name, "status": "done", "uncertainty": 0.25, "size_hw": [3, 6], "outputs": outputs} | {
        "classes": facts,
        **more,
    }


def columns(*records: dict[str, Any], places: dict[str, int] | None = None) -> dict[str, Any]:
    return columns_of(Run(Path("out"), list(records), {"classes": ["cat"]}), places or {})


def test_numbers_go_by_value() -> None:
    made = columns(
        record("a10.jpg", {"png": "masks/a10.png"}),
        record("a9.jpg", {"png": "masks/a9.png"}),
        {"input": "b.jpg", "status": "failed", "reason": "why"},
        places={"a10.jpg": 3},
    )
    assert made["names"] == ["a9.jpg", "a10.jpg", "b.jpg"] and made["status"] == "ddf"
    assert made["facts"] == [[[1234, 1234, 0], [5, 5, 0], [2, 2, 0], [5000, 5000, 0]]]
    assert made["uncertainty"] == [2500, 2500, 0]
    assert [made["sizes"][index] for index in made["size"]] == [(3, 6), (3, 6), (0, 0)]
    assert made["reasons"] == {2: "why"} and made["embedded"] == {1: 3} and made["ratio"] == 1.8  # 2, but for the limit
    assert made["rules"] == {"png": ("masks/", ".png")} and made["outputs"] == {}


def test_outputs_that_no_rule_makes_are_listed() -> None:
    twice = {"png": "masks/b.jpg.png"}  # b.jpg beside b.png: both keep their suffix
    assert columns(record("a.jpg", {"png": "masks/a.png"}), record("b.jpg", twice))["outputs"] == {1: twice}
    assert columns(record("a.jpg", {"png": "elsewhere/x.png"}))["outputs"] == {0: {"png": "elsewhere/x.png"}}


@settings(max_examples=50)
@given(st.lists(st.text("ab./1", max_size=6), unique=True, max_size=5))
def test_the_page_learns_each_output_by_rule_or_by_itself(names: list[str]) -> None:
    told = {name: {"png": f"masks/{name}.png", "overlay": f"overlays/{name}.jpg"} for name in names}
    made = columns(*(record(name, outputs) for name, outputs in told.items()))
    assert sorted(made["names"]) == sorted(names)
    for place, name in enumerate(made["names"]):
        stem = re.sub(r"(?<=[^/])\.[^./]+$", "", name)  # as the page does it
        rules = {kind: before + stem + after for kind, (before, after) in made["rules"].items()}
        assert made["outputs"].get(place, rules) == told[name]


def test_people_count_names() -> None:
    assert sorted(["b10", "B2", "a", "b1"], key=natural) == ["a", "b1", "B2", "b10"]
