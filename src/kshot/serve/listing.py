"""What the page shows of the folder and its images: rows of the gallery, filters, orders and counts."""

import re
import time
from collections import Counter
from dataclasses import dataclass

from kshot.serve import schemas as s
from kshot.serve.background import Background
from kshot.serve.workspace import Workspace

_MANY, _RECOUNT_SECONDS = 5000, 1.0
_LAST = {"failed": 2, "accepted": 1, "rejected": 1}  # among the doubtful first: what is done, what cannot be done


@dataclass(frozen=True)
class Filter:
    """Which images, and in which order."""

    sort: str
    state: str | None = None
    class_name: str = ""
    """Only images whose mask shows it."""
    name: str = ""
    """Part of the name, whatever the letter case."""


def status(workspace: Workspace, background: Background, session: str) -> s.Status:
    """All that is not about one image."""
    with workspace.folder.lock:
        counts = _counts(workspace)
        undo, redo = workspace.history.counts(session)
        fit = workspace.predictions.fit_now
        return s.Status(
            version=workspace.folder.version,
            title=workspace.images.root.name,
            out=str(workspace.out),
            read_only=workspace.writer is None,
            live=workspace.folder.live,
            classes=[s.ClassOut(name=one.name, colour=one.colour) for one in workspace.folder.classes],
            images=len(workspace.images),
            counts=counts,
            examples=[index for index, labels in sorted(workspace.folder.labels.items()) if labels.is_example],
            ready=len(background.encoded),
            fitting=background.fitting,
            fits=fit.number if fit else 0,
            left=background.left if workspace.folder.live else 0,
            idle=background.idle,
            problem=workspace.folder.problem,
            steps=s.Steps(undo=undo, redo=redo),
        )


def _counts(workspace: Workspace) -> dict[str, int]:
    """How many images are in each state; in a large folder counted anew now and then only."""
    when, counts = workspace.folder.counted
    if not counts or len(workspace.images) < _MANY or time.monotonic() - when > _RECOUNT_SECONDS:
        known = workspace.folder.facts.keys() | workspace.folder.failures.keys() | workspace.folder.labels.keys()
        counts = dict(Counter(workspace.folder.state(index) for index in known))
        counts["todo"] = counts.get("todo", 0) + len(workspace.images) - len(known)
        workspace.folder.counted = time.monotonic(), counts
    return counts


def listed(workspace: Workspace, background: Background, wanted: Filter, offset: int, limit: int) -> s.ImageList:
    """Images that fit, in order."""
    with workspace.folder.lock:
        order = _ordered(workspace, _chosen(workspace, wanted), wanted.sort)
        rows = [row(workspace, background, index) for index in order[offset : offset + limit]]
    return s.ImageList(total=len(order), offset=offset, images=rows, order=order)


def row(workspace: Workspace, background: Background, index: int) -> s.ImageOut:
    """One image."""
    facts, labels = workspace.folder.facts.get(index), workspace.folder.labels_of(index)
    return s.ImageOut(
        index=index,
        name=workspace.images.names[index],
        state=workspace.folder.state(index),  # type: ignore[arg-type]
        revision=workspace.folder.revision(index),
        ready=index in background.encoded,
        support=labels.is_example,
        uncertainty=facts.uncertainty if facts else None,
        areas=dict(facts.areas) if facts else {},
        present=dict(facts.present) if facts else {},
        reason=workspace.folder.failures.get(index, ""),
    )


def _chosen(workspace: Workspace, wanted: Filter) -> list[int]:
    part = wanted.name.casefold()
    found = []
    for index, name in enumerate(workspace.images.names):
        if part and part not in name.casefold():
            continue
        if wanted.state and workspace.folder.state(index) != wanted.state:
            continue
        facts = workspace.folder.facts.get(index)
        if wanted.class_name and not (facts and facts.areas.get(wanted.class_name)):
            continue
        found.append(index)
    return found


def _ordered(workspace: Workspace, indices: list[int], sort: str) -> list[int]:
    names, facts = workspace.images.names, workspace.folder.facts
    if sort == "name":
        return sorted(indices, key=lambda index: _as_people_count(names[index]))
    if sort == "area":
        return sorted(indices, key=lambda i: -sum(facts[i].areas.values()) if i in facts else 0.0)

    def doubt(index: int) -> tuple[int, float]:
        known = facts.get(index)
        return _LAST.get(workspace.folder.state(index), 0), -known.uncertainty if known else 0.0

    return sorted(indices, key=doubt)


def _as_people_count(name: str) -> list[tuple[int, int, str]]:
    return [(0, int(part), "") if part.isdecimal() else (1, 0, part) for part in re.split(r"(\d+)", name.casefold())]
