"""`kshot eval`, `kshot compare` and `kshot datasets`: figures to cite, side by side, and what they rest on."""

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from kshot.cli import options as o
from kshot.cli.output import answer, bars, say
from kshot.cli.parsing import parse_numbers
from kshot.errors import DatasetError, SettingError

if TYPE_CHECKING:
    from kshot.data.base import Dataset
    from kshot.evaluation import sweep
    from kshot.metrics import Interval

_DATA, _EPISODES, _WORK = "Data set", "Episodes", "Work"
_Progress = Callable[[int, int, float], None]


@dataclass(frozen=True)
class Episodes:
    """Which episodes are run, and at which size their masks are scored."""

    protocol: Annotated[str, o.option(_EPISODES, "hsnet, pfenet, panet, fs-cs, seed")] = "hsnet"
    way: Annotated[str | None, o.option(_EPISODES, "Classes an episode, e.g. 1,2.")] = None
    shot: Annotated[str | None, o.option(_EPISODES, "Supports a class, e.g. 1,5.")] = None
    episodes: Annotated[int | None, o.option(_EPISODES, "A run. [default: the protocol's]", min=1)] = None
    seed: Annotated[int | None, o.option(_EPISODES, "[default: the protocol's, mostly 0]", min=0)] = None
    allow_repeats: Annotated[bool, o.option(_EPISODES, "Supports may repeat within K.", "--allow-repeats")] = False
    episodes_from: Annotated[Path | None, o.option(_EPISODES, "Episodes of another run: its episodes.csv.")] = None
    score_size: Annotated[int | None, o.option(_EPISODES, "Score at this square size.", min=1)] = None
    instances: Annotated[
        str | None, o.option(_EPISODES, "Compare objects too (PQ, AP50): watershed, learned, components.")
    ] = None


@o.grouped("bands", "stretch")
def evaluate(
    *,
    dataset: Annotated[str, typer.Argument(help="voc, coco, fss1000, folder, or auto; davis for films.")],
    root: Annotated[Path, o.option(_DATA, "Where the data set lies.")],
    out: o.Out,
    fold: Annotated[str, o.option(_DATA, "none (all classes), 0..3, several (0,2), or all: their mean.")] = "none",
    memory: Annotated[int | None, o.option(_DATA, "davis: earlier frames that count. [default: 5]", min=0)] = None,
    strict: Annotated[bool, o.option(_DATA, "Stop at missing files and small classes.", "--strict")] = False,
    episodes: Episodes,
    model: o.Model,
    workers: Annotated[int | None, o.option(_WORK, "Processes. [default: cores]", min=1)] = None,
    cache: Annotated[Path | None, o.option(_WORK, "Folder of features. [default: the user's]")] = None,
    cache_size: Annotated[float, o.option(_WORK, "Its bound in GB.", min=0)] = 20.0,
    json: o.Json = False,
) -> None:
    """Evaluate on few-shot episodes: exact protocols, intervals, OUT/results.json and OUT/report.html.

    The same command again goes on where it was stopped, or reads what is there.

    [bold]Examples[/]

      kshot eval voc --root VOCdevkit/VOC2012 --fold all --shot 1,5 -o runs/pascal

      kshot eval voc --root VOCdevkit/VOC2012 --protocol seed -o runs/seed

      kshot eval davis --root DAVIS -o runs/davis
    """
    if dataset == "davis":
        _refuse_beside_films(episodes, fold, strict, workers)
        _evaluate_films(root, out, model, memory, json)
        return
    if memory is not None:
        raise SettingError(f"--memory: episodes of {dataset} are no films; leave it out, or evaluate davis")
    from kshot.data.base import load_dataset
    from kshot.evaluation import sweep
    from kshot.evaluation.workers import rank_and_world_size, worker_count
    from kshot.io.paths import user_cache
    from kshot.report.evaluation import write_report

    place = (cache or user_cache()).expanduser()

    def open_fold(number: int | None) -> "Dataset":
        return load_dataset(dataset, root, fold=number, strict=strict, cache=place / "areas")

    specs = _specs(open_fold, fold, strict, episodes)
    segmenter = model.segmenter()
    processes = worker_count(segmenter, workers)
    how = {"workers": processes, "cache": place / "features", "cache_bytes": int(cache_size * 1e9)}
    size = episodes.score_size
    with _progress_bars() as bar:
        rows = sweep.evaluate_runs(segmenter, specs, out, bar, score_size=size, instances=episodes.instances, **how)
    if rank_and_world_size()[0] > 0:
        return
    command = ["kshot", *sys.argv[1:]]
    facts = sweep.write_results(out, rows, command)
    report = write_report(out, rows, specs, segmenter, command, cache=place / "features", score_size=size)
    answer(json, facts | {"report": str(report)}, *_table(rows), f"report: {report}")


def compare(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN RUN...", help="Folders that eval wrote; the first leads.")],
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Write an HTML page here.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a file that is no page of kshot.")] = False,
    json: o.Json = False,
) -> None:
    """Runs side by side, paired by episode, with the bootstrap interval of the difference."""
    if len(runs) < 2:
        raise typer.BadParameter("expected at least two run folders")
    from kshot.evaluation.compare import compare_runs
    from kshot.report.evaluation import write_comparison
    from kshot.report.rendering import check_page

    if out is not None:
        check_page(out, overwrite=overwrite)
    found = compare_runs(runs)
    if out is not None:
        write_comparison(out, found)
    rows = [["setting", "run", "mIoU", "difference", "95 % interval", "verdict"]]
    for each in found:
        interval = f"{each.low:+.4f} to {each.high:+.4f}" if each.low is not None else ""
        difference = f"{each.difference:+.4f}" if each.difference is not None else ""
        rows.append([each.setting, each.run, f"{each.value:.4f}", difference, interval, each.verdict])
    warnings = dict.fromkeys(warning for each in found for warning in each.warnings)
    page = [f"page: {out}"] if out is not None else []
    answer(json, [each.summary() for each in found], *_aligned(rows), *warnings, *page)


def datasets(
    root: Annotated[Path, typer.Argument(help="A folder; searched two folders deep.")],
    json: o.Json = False,
) -> None:
    """Which data sets lie here: images and pairs per class, and what is missing."""
    from kshot.data.base import find_datasets, load_dataset, looks_for
    from kshot.io.paths import user_cache

    if not root.is_dir():
        raise DatasetError(f"{root}: no such folder; check the path")
    found = find_datasets(root)
    if not found:
        listed = "\n  ".join(looks_for())
        raise DatasetError(f"{root}: no data set was recognised; looked for\n  {listed}")
    reports = [load_dataset(family, place, cache=user_cache() / "areas").report() for family, place in found]
    lines = "\n\n".join("\n".join(report.lines()) for report in reports)
    answer(json, [asdict(report) for report in reports], lines)


def _specs(
    open_fold: "Callable[[int | None], Dataset]", fold: str, strict: bool, chosen: Episodes
) -> "list[sweep.RunSpec]":
    """The runs of the command."""
    from kshot.evaluation import sweep

    if chosen.episodes_from is not None:
        _refuse_beside_csv(chosen, fold)
        return [sweep.read_run(open_fold(None), chosen.episodes_from)]
    folds: Sequence[int | None] | Literal["all"] = "all"
    if fold != "all":
        folds = (None,) if fold == "none" else parse_numbers("--fold", fold, least=0)
    return sweep.plan_runs(
        open_fold,
        folds=folds,
        protocol=chosen.protocol,
        ways=parse_numbers("--way", chosen.way),
        shots=parse_numbers("--shot", chosen.shot),
        count=chosen.episodes,
        seed=chosen.seed,
        allow_repeats=chosen.allow_repeats,
        drop_small=not strict,
    )


def _evaluate_films(root: Path, out: Path, model: o.Model, memory: int | None, json: bool) -> None:
    from kshot.evaluation import evaluate_films
    from kshot.memory import DEFAULT_FRAMES
    from kshot.report.film_evaluation import write_film_report

    segmenter = model.segmenter()
    with _progress_bars() as bar:
        frames = DEFAULT_FRAMES if memory is None else memory
        found = evaluate_films(segmenter, root, memory=frames, out=out, progress=bar("films"))
    rows = [["film", "object", "J", "recall", "decay", "flicker", "F", "recall", "decay", "flicker"]]
    for one in found.objects:
        values = (f"{value:.3f}" for measure in (one.j, one.f) for value in asdict(measure).values())
        rows.append([one.film, str(one.label), *values])
    means = [f"{value:.3f}" for name, value in found.figures.items() if name != "j_and_f"]
    rows.append([f"mean of {len(found.objects)}", "", *means])
    report = write_film_report(out, root, found, segmenter, ["kshot", *sys.argv[1:]])
    told = [f"J&F {found.figures['j_and_f']:.3f}", *found.warnings, f"report: {report}"]
    answer(json, found.summary() | {"report": str(report)}, *_aligned(rows), *told)


def _refuse_beside_films(chosen: Episodes, fold: str, strict: bool, workers: int | None) -> None:
    """Films are no episodes: the first true mask of each is its support, and one process does them in order."""
    given = {f"--{f.name.replace('_', '-')}": getattr(chosen, f.name) != f.default for f in fields(Episodes)}
    given |= {"--fold": fold != "none", "--strict": strict, "--workers": workers is not None}
    named = [flag for flag, value in given.items() if value]
    if named:
        raise SettingError(f"davis: films are no episodes, so {', '.join(named)} say nothing; leave them out")


def _refuse_beside_csv(chosen: Episodes, fold: str) -> None:
    given = {"--way": chosen.way, "--shot": chosen.shot, "--episodes": chosen.episodes, "--seed": chosen.seed}
    given |= {"--allow-repeats": chosen.allow_repeats or None, "--fold": None if fold == "none" else fold}
    named = [flag for flag, value in given.items() if value is not None]
    if named:
        raise SettingError(f"--episodes-from: the file says these itself: {', '.join(named)}; leave them out")


def _between(interval: "Interval") -> str:
    return f"{interval.low:.4f} to {interval.high:.4f}"


def _table(rows: "Sequence[sweep.SummaryRow]") -> list[str]:
    settings = rows[0].settings
    figures = {
        "FB-IoU": "fb_iou",
        "strict": "strict_miou",
        "presence": "presence_accuracy",
        "boundary F": "boundary",
        "ECE": "calibration_error",
    }
    if settings["protocol"] == "panet":
        figures["PANet mIoU"] = "panet_miou"
    if "instances" in settings:
        figures |= {"PQ": "pq", "SQ": "sq", "RQ": "rq", "AP50": "ap50", "count error": "count_error"}
    table = [["setting", "over", "episodes", "mIoU", "95 % interval", *figures]]
    if "instances" in settings:
        table[0].append("95 % interval of PQ")
    for row in rows:
        values = [f"{row.figure(name):.4f}" for name in figures.values()]
        values += [_between(row.pq_interval)] if row.pq_interval else []
        main = f"{row.interval.value:.4f}", _between(row.interval)
        table.append([row.name, row.over, str(row.episodes), *main, *values])
    lines = [f"protocol {settings['protocol']}, data set {settings['dataset']}, split {settings['split']}"]
    lines += [*_aligned(table), *dict.fromkeys(warning for row in rows for warning in row.warnings)]
    if {row.metric for row in rows} != {"mIoU"}:
        lines.append("mIoU is " + ", ".join(f"{row.name}: {row.metric}" for row in rows))
    return lines


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(f"{word:{width}}" for word, width in zip(row, widths, strict=True)).rstrip() for row in rows]


@contextmanager
def _progress_bars() -> Iterator[Callable[[str], _Progress | None]]:
    """For each run a bar with the mIoU so far, on stderr when that is a terminal."""
    from rich.progress import TextColumn

    from kshot.evaluation.workers import rank_and_world_size

    first = rank_and_world_size()[0] == 0
    with bars(TextColumn("{task.fields[miou]}"), shown=first, transient=False) as shown:

        def start(name: str) -> _Progress | None:
            if shown.disable:
                say(f"{name} ...") if first else None
                return None
            task = shown.add_task(name, total=None, miou="")

            def step(done: int, total: int, miou: float) -> None:
                shown.update(task, completed=done, total=total, miou=f"mIoU {miou:.3f}")

            return step

        yield start
