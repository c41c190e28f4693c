"""`kshot eval`, `kshot compare` and `kshot datasets`: figures to cite, side by side, and what they rest on."""

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from kshot.cli import options as o
from kshot.cli.output import print_json, say
from kshot.data.base import Dataset, find_datasets, load_dataset, looks_for
from kshot.episodes.csv import read_episodes
from kshot.episodes.protocols import PROTOCOLS
from kshot.errors import DatasetError, SettingError
from kshot.evaluation import sweep
from kshot.evaluation.compare import compare_runs
from kshot.evaluation.workers import rank_and_world_size
from kshot.report.evaluation import write_comparison, write_report

_DATA, _EPISODES, _WORK = "Data set", "Episodes", "Work"
_Progress = Callable[[int, int, float], None]


def evaluate(
    dataset: Annotated[str, typer.Argument(help="voc, coco, fss1000, folder, or auto.")],
    root: Annotated[Path, typer.Option(help="Where the data set lies.", rich_help_panel=_DATA)],
    out: o.Out,
    fold: Annotated[
        str, typer.Option(help="none (all classes), 0..3, several (0,2), or all: their mean.", rich_help_panel=_DATA)
    ] = "none",
    strict: Annotated[
        bool, typer.Option("--strict", help="Stop at missing files and small classes.", rich_help_panel=_DATA)
    ] = False,
    protocol: Annotated[str, typer.Option(help=", ".join(PROTOCOLS), rich_help_panel=_EPISODES)] = "hsnet",
    way: Annotated[str | None, typer.Option(help="Classes an episode, e.g. 1,2.", rich_help_panel=_EPISODES)] = None,
    shot: Annotated[str | None, typer.Option(help="Supports a class, e.g. 1,5.", rich_help_panel=_EPISODES)] = None,
    episodes: Annotated[
        int | None, typer.Option(min=1, help="A run. [default: the protocol's]", rich_help_panel=_EPISODES)
    ] = None,
    seed: Annotated[
        int | None, typer.Option(min=0, help="[default: the protocol's, mostly 0]", rich_help_panel=_EPISODES)
    ] = None,
    allow_repeats: Annotated[
        bool, typer.Option("--allow-repeats", help="Supports may repeat within K.", rich_help_panel=_EPISODES)
    ] = False,
    episodes_from: Annotated[
        Path | None, typer.Option(help="Episodes of another run: its episodes.csv.", rich_help_panel=_EPISODES)
    ] = None,
    score_size: Annotated[
        int | None, typer.Option(min=1, help="Score at this square size.", rich_help_panel=_EPISODES)
    ] = None,
    backbone: o.Backbone = None,
    method: o.Method = None,
    refiner: o.Refiner = None,
    set_: o.Set = None,
    size: o.Size = None,
    layers: o.Layers = None,
    device: o.Device = "auto",
    dtype: o.Dtype = "float32",
    max_pixels: o.MaxPixels = o.DEFAULT_MAX_PIXELS,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Processes. [default: cores]", rich_help_panel=_WORK)
    ] = None,
    cache: Annotated[
        Path | None, typer.Option(help="Folder of features. [default: the user's]", rich_help_panel=_WORK)
    ] = None,
    cache_size: Annotated[float, typer.Option(min=0, help="Its bound in GB.", rich_help_panel=_WORK)] = 20.0,
    json: o.Json = False,
) -> None:
    """Evaluate on few-shot episodes: exact protocols, intervals, OUT/results.json and OUT/report.html.

    The same command again goes on where it was stopped, or reads what is there.

    [bold]Examples[/]

      kshot eval voc --root VOCdevkit/VOC2012 --fold all --shot 1,5 -o runs/pascal

      kshot eval voc --root VOCdevkit/VOC2012 --protocol seed -o runs/seed
    """
    place = (cache or _user_cache()).expanduser()
    open_fold = partial(_open, dataset, root, strict, place / "areas")
    if episodes_from is not None:
        _refuse_beside_csv(way, shot, episodes, seed, fold, allow_repeats)
        data = open_fold(None)
        drawn = read_episodes(episodes_from, data)
        name = sweep.run_name(drawn.settings.way, drawn.settings.shot, None)
        specs = [sweep.RunSpec(name, data, drawn)]
    else:
        specs = sweep.plan_runs(
            open_fold,
            folds=_folds(fold, open_fold),
            protocol=protocol,
            ways=_numbers("--way", way),
            shots=_numbers("--shot", shot),
            count=episodes,
            seed=seed,
            allow_repeats=allow_repeats,
            drop_small=not strict,
        )
    rest: dict[str, Any] = {"device": device, "dtype": dtype, "max_pixels": max_pixels}
    rest["set_"] = set_
    segmenter = o.make_segmenter(backbone=backbone, method=method, refiner=refiner, size=size, layers=layers, **rest)
    # Processes that share one accelerator gain nothing and hold the model once each.
    on_cpu = str(segmenter.backbone.device).startswith("cpu")
    how: dict[str, Any] = {
        "score_size": score_size,
        "workers": (workers or _cores()) if on_cpu else 1,
        "cache": place / "features",
        "cache_bytes": int(cache_size * 1e9),
    }
    with _progress_bars() as bar:
        rows = sweep.evaluate_runs(segmenter, specs, out, bar, **how)
    if rank_and_world_size()[0] > 0:
        return None
    command = ["kshot", *sys.argv[1:]]
    facts = sweep.write_results(out, rows, command)
    report = write_report(out, rows, specs, segmenter, command, cache=how["cache"], score_size=score_size)
    if json:
        return print_json(facts | {"report": str(report)})
    _print_table(rows)
    typer.echo(f"report: {report}")
    return None


def compare(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN RUN...", help="Folders that eval wrote; the first leads.")],
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Write an HTML page here.")] = None,
    json: o.Json = False,
) -> None:
    """Runs side by side, paired by episode, with the bootstrap interval of the difference."""
    if len(runs) < 2:
        raise typer.BadParameter("expected at least two run folders")
    found = compare_runs(runs)
    if out is not None:
        write_comparison(out, found)
    if json:
        return print_json([each.summary() for each in found])
    rows = [["setting", "run", "mIoU", "difference", "95 % interval", "verdict"]]
    for each in found:
        interval = f"{each.low:+.4f} to {each.high:+.4f}" if each.low is not None else ""
        difference = f"{each.difference:+.4f}" if each.difference is not None else ""
        rows.append([each.setting, each.run, f"{each.value:.4f}", difference, interval, each.verdict])
    typer.echo(_aligned(rows))
    for warning in dict.fromkeys(warning for each in found for warning in each.warnings):
        typer.echo(warning)
    if out is not None:
        typer.echo(f"page: {out}")
    return None


def datasets(
    root: Annotated[Path, typer.Argument(help="A folder; searched two folders deep.")],
    json: o.Json = False,
) -> None:
    """Which data sets lie here: images and pairs per class, and what is missing."""
    if not root.is_dir():
        raise DatasetError(f"{root}: no such folder; check the path")
    found = find_datasets(root)
    if not found:
        listed = "\n  ".join(looks_for())
        raise DatasetError(f"{root}: no data set was recognised; looked for\n  {listed}")
    reports = [load_dataset(family, place, cache=_user_cache() / "areas").report() for family, place in found]
    if json:
        return print_json([asdict(report) for report in reports])
    typer.echo("\n\n".join("\n".join(report.lines()) for report in reports))
    return None


def _open(name: str, root: Path, strict: bool, areas: Path, fold: int | None) -> Dataset:
    return load_dataset(name, root, fold=fold, strict=strict, cache=areas)


def _folds(text: str, open_fold: Callable[[int | None], Dataset]) -> tuple[int | None, ...]:
    if text == "none":
        return (None,)
    if text != "all":
        return _numbers("--fold", text, least=0)
    data = open_fold(None)
    if not data.folds:
        raise SettingError(f"{data.name} has no folds; leave --fold out")
    return tuple(range(len(data.folds)))


def _numbers(flag: str, text: str | None, least: int = 1) -> tuple[int, ...]:
    """Whole numbers from "1,5"."""
    parts = [part.strip() for part in text.split(",")] if text is not None else []
    if not all(part.isdecimal() and int(part) >= least for part in parts):
        raise SettingError(f"{flag} {text}: expected whole numbers from {least} on, with commas between, such as 1,5")
    return tuple(dict.fromkeys(int(part) for part in parts))


def _refuse_beside_csv(
    way: str | None, shot: str | None, count: int | None, seed: int | None, fold: str, repeats: bool
) -> None:
    given = {"--way": way, "--shot": shot, "--episodes": count, "--seed": seed, "--allow-repeats": repeats or None}
    given["--fold"] = None if fold == "none" else fold
    named = [flag for flag, value in given.items() if value is not None]
    if named:
        raise SettingError(f"--episodes-from: the file says these itself: {', '.join(named)}; leave them out")


def _user_cache() -> Path:
    """Where this system keeps what can be made again."""
    if "XDG_CACHE_HOME" in os.environ:
        return Path(os.environ["XDG_CACHE_HOME"]) / "kshot"
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA", "~/AppData/Local")).expanduser() / "kshot" / "cache"
    return Path("~/Library/Caches" if sys.platform == "darwin" else "~/.cache").expanduser() / "kshot"


def _cores() -> int:
    """The cores that this process may use, which is fewer than the machine's in a container or under a queue."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _print_table(rows: Sequence[sweep.SummaryRow]) -> None:
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
    table = [["setting", "over", "episodes", "mIoU", "95 % interval", *figures]]
    for row in rows:
        interval = f"{row.interval.low:.4f} to {row.interval.high:.4f}"
        values = [f"{row.figure(name):.4f}" for name in figures.values()]
        table.append([row.name, row.over, str(row.episodes), f"{row.interval.value:.4f}", interval, *values])
    typer.echo(f"protocol {settings['protocol']}, data set {settings['dataset']}, split {settings['split']}")
    typer.echo(_aligned(table))
    for warning in dict.fromkeys(warning for row in rows for warning in row.warnings):
        typer.echo(warning)
    if {row.metric for row in rows} != {"mIoU"}:
        typer.echo("mIoU is " + ", ".join(f"{row.name}: {row.metric}" for row in rows))


def _aligned(rows: Sequence[Sequence[str]]) -> str:
    widths = [max(len(row[n]) for row in rows) for n in range(len(rows[0]))]
    return "\n".join(
        "  ".join(f"{word:{width}}" for word, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


@contextmanager
def _progress_bars() -> Iterator[Callable[[str], _Progress | None]]:
    """For each run a bar with the mIoU so far, on stderr when that is a terminal."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    shown = sys.stderr.isatty() and rank_and_world_size()[0] == 0
    with Progress(*columns, TextColumn("{task.fields[miou]}"), console=Console(stderr=True), disable=not shown) as bars:

        def start(name: str) -> _Progress | None:
            if not shown:
                say(f"{name} ...") if rank_and_world_size()[0] == 0 else None
                return None
            task = bars.add_task(name, total=None, miou="")

            def step(done: int, total: int, miou: float) -> None:
                bars.update(task, completed=done, total=total, miou=f"mIoU {miou:.3f}")

            return step

        yield start
