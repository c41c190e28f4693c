"""A task comes back from its file whatever its supports are."""

import tempfile
from dataclasses import replace
from pathlib import Path

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kshot.methods.base import KINDS, FeatureSpec, Support
from kshot.methods.text import Task
from kshot.ops.geometry import FeatureMap, Frame
from kshot.tasks import load_task

SPEC = FeatureSpec("hand", "hand", (), 8, 8)


@st.composite
def supports(draw: st.DrawFn, ways: int) -> Support:
    """A support of any kind, with or without token and objectness."""
    kind, seed = draw(st.sampled_from(KINDS)), draw(st.integers(0, 2**16))
    cells = draw(st.integers(1, 4))
    generator = torch.Generator().manual_seed(seed)
    unit = torch.nn.functional.normalize(torch.randn(3, 1, cells, generator=generator), dim=0)
    masks = torch.rand(ways, 1, cells, generator=generator) / ways
    features = FeatureMap(
        unit,
        Frame((8, 8 * cells), (8, 8 * cells), 8),
        "hand",
        unit[:, 0, 0] if draw(st.booleans()) else None,
        torch.rand(1, cells, generator=generator) if draw(st.booleans()) else None,
    )
    return Support(features, masks, torch.ones(1, cells), kind, draw(st.floats(0.01, 100)))


@given(st.data(), st.integers(1, 3), st.integers(1, 4))
@settings(deadline=None, max_examples=30)
def test_a_task_comes_back_from_its_file(data: st.DataObject, ways: int, count: int) -> None:
    shown = tuple(data.draw(supports(ways)) for _ in range(count))
    task = Task(tuple("abc"[:ways]), shown, SPEC)
    with tempfile.TemporaryDirectory() as folder:
        again = load_task(task.save(Path(folder) / "x.kshot"))
    query = FeatureMap(torch.eye(3)[:, None], Frame((8, 24), (8, 24), 8), "hand")
    assert torch.equal(again.score(query), task.score(query)) and again.digest() == task.digest()
    for old, new in zip(task.supports, again.supports, strict=True):
        assert (old.kind, old.weight, old.features.frame) == (new.kind, new.weight, new.features.frame)


@given(st.data())
@settings(deadline=None, max_examples=15)
def test_kinds_and_weights_are_part_of_the_digest(data: st.DataObject) -> None:
    shown = data.draw(supports(1))
    first = Task(("a",), (shown,), SPEC).digest()
    assert Task(("a",), (replace(shown, weight=shown.weight + 1),), SPEC).digest() != first
