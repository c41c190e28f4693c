"""A sentence on a run whose masks are doubtful as a whole, or lack small objects, and what to do about it."""

from collections.abc import Sequence
from statistics import median

from kshot.errors import plural
from kshot.io.manifest import FAILED, Record

# Medians of `tiny` on development sets: 0.77 on cells (two classes) and 0.73 on steel (three), where most of what was
# marked was right; 0.55 on crops and weeds (two) and 0.45 on photographs (three), where most was wrong. Piles of ore
# (three) had 0.42 and were right: the best of several classes needs no high score, so a warning may be in vain there.
LOW_SCORE, LOW_SCORE_OF_SEVERAL = 0.6, 0.45
_FEWEST, _SHARE = 3, 0.2  # images that contradict themselves, of all


def advice_of(records: Sequence[Record], presence_threshold: float) -> str:
    """What to do about a run, in one sentence; empty where nothing speaks for it.

    It looks at the median score of the masks, by image and class, and at classes that are held to be in an image and
    have no pixel there. presence_threshold: from which on they are held to be.
    """
    images = [record["classes"] for record in records if record["status"] != FAILED and "classes" in record]
    scores = [facts["score"] for each in images for facts in each.values() if facts["pixels"]]
    several = any(len(each) > 1 for each in images)
    missed = sum(
        any(facts["present"] >= presence_threshold and not facts["pixels"] for facts in each.values())
        for each in images
    )
    if missed >= max(_FEWEST, _SHARE * len(images)):
        return (
            f"in {missed} of {plural(len(images), 'image')} a class is held to be there, but no pixel is marked: for "
            "small or thin things keep small pieces (min_area, --min-area 0) or use tiles (tiling, --tile), else give "
            "more supports"
        )
    if len(scores) >= _FEWEST and median(scores) < (LOW_SCORE_OF_SEVERAL if several else LOW_SCORE):
        return (
            f"the masks are doubtful, their median score is {median(scores):.2f}: give more supports, try another "
            "backbone (--backbone), or for thin things tiles (tiling, --tile)"
        )
    return ""


def left_out_of(records: Sequence[Record], min_area: float | str | None) -> str:
    """How many pieces of masks are no objects since they are too small, and what keeps them, in one sentence.

    min_area: of the run, see `kshot.types.Thresholds`. Empty where nothing was left out.
    """
    specks = sum(record.get("specks", 0) for record in records)
    if not specks:
        return ""
    least = "two patch tokens" if min_area is None else f"min_area (--min-area) {min_area}"
    return (
        f"{plural(specks, 'piece')} smaller than {least} left out as specks; to count them too, give the pixels of the "
        "smallest object, or 0, as min_area (--min-area)"
    )
