"""Where the lines of a chart stand."""

from hypothesis import given
from hypothesis import strategies as st

from kshot.report.charts import _ticks, curves


@given(low=st.floats(-1e6, 1e6), room=st.floats(0, 1e6))
def test_ticks_are_few_and_hold_everything(low: float, room: float) -> None:
    ticks = _ticks(low, low + room)
    slack = 1e-6 * max(abs(low), room, 1)
    assert 2 <= len(ticks) <= 9 and ticks == sorted(ticks)
    assert ticks[0] <= low + slack and low + room <= ticks[-1] + slack


def test_curves_are_where_they_should_be() -> None:
    """From 0 to 4 at the bottom and top of 210 pixels, 410 wide, behind a margin of 64 and 8."""
    drawn = curves([("train", [(0, 0.0), (5, 4.0), (10, 2.0)]), ("val", [])], mark=5)
    assert 'points="64,218 269,8 474,113"' in drawn
    assert '<line x1="269" y1="8" x2="269" y2="218" class="ideal"/>' in drawn
    assert "nan" not in curves([("val", [(1, float("nan")), (2, 1.0)])])
    assert "<svg" in curves([])
