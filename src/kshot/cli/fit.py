"""`kshot fit`: supports in, a task file out."""

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from kshot.cli import options as o
from kshot.cli.output import answer, bars, described, say, say_notes, say_size, say_warnings
from kshot.errors import plural

if TYPE_CHECKING:
    from rich.progress import TaskID

    from kshot.batch.review import Effect
    from kshot.methods.base import Task
    from kshot.segmenter import Segmenter
    from kshot.types import Shot, SupportSet

FIT_EXAMPLES = """Examples:

kshot fit support/ -o cat.kshot

kshot fit support/ --add out/accepted -o better.kshot

kshot fit --support dog=d.jpg:d.png --add-to cat.kshot -o pets.kshot
"""


@o.grouped()
def fit(
    *,
    out: Annotated[Path, typer.Option("--out", "-o", help="Task file to write, e.g. dog.kshot.")],
    folder: Annotated[str | None, typer.Argument(metavar="[SUPPORT]", help="Support folder.")] = None,
    prompts: o.Prompts,
    model: o.Model,
    add: Annotated[
        Path | None, typer.Option("--add-to", help="Start from this task file and add the supports.")
    ] = None,
    accepted: Annotated[
        list[str] | None,
        typer.Option(
            "--add",
            help="A run, a folder in one such as OUT/accepted, of which what you changed or accepted is taken, or any "
            "folder of more labels; may be given again.",
        ),
    ] = None,
    no_effect: Annotated[
        bool, typer.Option("--no-effect", help="With --add: do not predict the run's doubtful images again.")
    ] = False,
    json: o.Json = False,
) -> None:
    """Fit a task from supports and save it, so that any number of folders can be predicted later."""
    from kshot.batch.additions import read_added
    from kshot.io.tensor_file import check_place
    from kshot.tasks import load_task

    check_place(out)
    accepted = accepted or []
    added = [read_added(Path(name)) for name in accepted]
    more = [shot for supports in added for shot in supports]
    supports = _supports(folder, prompts, accepted, more)
    read = [supports, *added]
    for one in read:
        say_notes(one)
    for name, one in zip(accepted, added, strict=True):
        say(f"added from {name}: {plural(len(one), 'support')}")
    if add is None:
        segmenter = model.segmenter()
        task = segmenter.fit(supports)
        say_size(task)
    else:
        before = load_task(add, model.method_file)
        segmenter = model.segmenter_of(before)
        task = before.with_shots(supports, segmenter)
    task.save(out)
    say_warnings(task)
    effects = [] if no_effect else list(_effects(segmenter, task, accepted, more))
    facts: dict[str, Any] = {
        "task": str(out),
        "classes": task.classes,
        "supports": task.support_count,
        "backbone": task.feature_spec.backbone,
        "size": task.feature_spec.size,
        "remarks": [*task.warnings, *(note for one in read for note in one.notes)],
    }
    if task.size_choice is not None:
        facts["size_choice"] = task.size_choice.to_dict()
    if effects:
        facts["effect"] = [asdict(effect) for effect in effects]
    if added:
        facts["added"] = [{"from": name, "supports": len(one)} for name, one in zip(accepted, added, strict=True)]
    lines = [f"{out}: {plural(len(task.classes), 'class', 'classes')} ({', '.join(task.classes)}), {_counted(task)}"]
    lines += [
        f"mean uncertainty of the {effect.images} most doubtful other images: "
        f"{100 * effect.before:.1f}% -> {100 * effect.after:.1f}%"
        for effect in effects
    ]
    if not json:
        say(described(supports))
    answer(json, facts, *lines)
    if any(one.failures for one in read):
        raise typer.Exit(3)


def _effects(segmenter: "Segmenter", task: "Task", accepted: "list[str]", more: "list[Shot]") -> "Iterator[Effect]":
    """What was added does to the other images of each run, under a bar."""
    from kshot.batch.review import effect_of_accepted

    with bars() as bar:
        for name in accepted:
            shown = bar.add_task(f"doubtful images of {name}, again", total=None)

            def step(done: int, total: int, shown: "TaskID" = shown) -> None:
                bar.update(shown, completed=done, total=total)

            found = effect_of_accepted(segmenter, task, Path(name), more, step)
            if found:
                yield found


def _supports(folder: str | None, prompts: o.Prompts, accepted: "list[str]", more: "list[Shot]") -> "SupportSet":
    """The supports of the command line and the accepted ones; either are enough."""
    from kshot.cli.prompts import read_supports
    from kshot.types import SupportSet

    if more and not folder and not prompts:
        return SupportSet(more, source=", ".join(accepted))
    supports = read_supports(folder, prompts)
    source = " and ".join([supports.source, *accepted])
    return SupportSet([*supports, *more], source=source, notes=supports.notes, failures=supports.failures)


def _counted(task: "Task") -> str:
    """How many supports there are, of each kind."""
    texts = sum(support.kind == "text" and bool(support.masks.any()) for support in task.supports)
    images = task.support_count - texts
    parts = [plural(images, "support image")] if images or not texts else []
    return " and ".join([*parts, plural(texts, "text")] if texts else parts)
