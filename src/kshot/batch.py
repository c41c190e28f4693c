"""Folders: every image gets a line in the manifest, whatever happens to it or to the run.

An output folder holds `manifest.jsonl` (a line per image), `settings.json`, and a folder per format whose paths
mirror the inputs'. Files appear whole or not at all, so a run that was stopped anywhere continues with `resume`.
"""

import hashlib
import json
import logging
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from kshot import __version__, _plugins
from kshot.errors import InputError, KshotError, OutputError, SettingError
from kshot.formats import instances
from kshot.formats.folders import list_images
from kshot.formats.trees import Export
from kshot.formats.writing import write_text
from kshot.methods.base import Task
from kshot.ops.regions import count_regions
from kshot.segmenter import Segmenter
from kshot.types import Prediction

log = logging.getLogger(__name__)
MANIFEST, SETTINGS, MASKS = "manifest.jsonl", "settings.json", "png"
Record = dict[str, Any]
_WATCH_SECONDS = 1.0


@dataclass(frozen=True)
class Job:
    """One image: its name in the manifest (relative to the input folder), its path, its outputs' stem."""

    name: str
    path: Path
    stem: str


@dataclass
class Summary:
    """What a run did. objects: connected regions over all masks. skipped: done by an earlier run."""

    out: str
    total: int = 0
    processed: int = 0
    objects: int = 0
    empty: int = 0
    failed: int = 0
    skipped: int = 0
    seconds: float = 0.0
    interrupted: bool = False
    failures: list[dict[str, str]] = field(default_factory=list)

    def count(self, record: Record) -> None:
        """Add one record."""
        self.processed += 1
        self.objects += sum(facts["regions"] for facts in record.get("classes", {}).values())
        self.empty += record["status"] == "empty"
        if record["status"] == "failed":
            self.failed += 1
            self.failures.append({"input": record["input"], "reason": record["reason"]})


def label_folder(
    segmenter: Segmenter,
    task: Task,
    images: str | Path,
    out: str | Path,
    *,
    formats: Sequence[str] = ("png", "overlay"),
    export: Export | None = None,
    resume: bool = False,
    overwrite: bool = False,
    limit: int | None = None,
    watch: bool = False,
    notes: Mapping[str, Any] | None = None,
    progress: Callable[[Record, int, int], None] | None = None,
) -> Summary:
    """Masks of all images of a folder, glob pattern or file into `out`.

    formats: names from `kshot.names("formats")`; index masks are always written.
    export: polygons or masks, and whether masks are split into objects. notes: kept in settings.json.
    watch: after the last image keep looking for new ones until Ctrl-C.
    progress: called after each image with its record, how many are through, and how many there are.
    Broken images become failed lines. Ctrl-C ends the run in order, with `interrupted` set.
    Raises `SettingError` when `out` holds another run, `InputError` without images, `OutputError` when nothing can be
    written.
    """
    out, started = Path(out), time.perf_counter()
    export = export or Export()
    writers = _writers(formats, export)
    jobs = _Jobs(images, out, limit, watch)
    notes = {"images": str(_root(Path(images)).resolve()), "export": asdict(export), **(notes or {})}
    done = _open_run(out, task, segmenter, notes, resume=resume, overwrite=overwrite)
    summary, records = Summary(str(out)), {}
    try:
        for job in jobs:
            if job.name in done and _is_there(out, done[job.name]):
                records[job.name] = done[job.name]
                summary.skipped += 1
                continue
            records[job.name] = record = _label_one(segmenter, task, job, out, writers)
            _append(out / MANIFEST, record)
            summary.count(record)
            if progress:
                progress(record, len(records), len(jobs))
    except KeyboardInterrupt:
        summary.interrupted = not watch
    # What an earlier run did beyond this one's limit stays in the manifest.
    kept = [record for name, record in done.items() if name not in records and _is_there(out, record)]
    _close_run(out, [*records.values(), *kept], task.classes, writers, export)
    summary.total, summary.seconds = len(jobs), round(time.perf_counter() - started, 3)
    return summary


def read_manifest(out: Path) -> list[Record]:
    """The records of an output folder, the last one of each input; a line that a crash cut off is left out."""
    try:
        lines = (out / MANIFEST).read_text(encoding="utf-8").splitlines()
    except FileNotFoundError as error:
        raise SettingError(f"{out}: no {MANIFEST} in it; give a folder that `kshot label` wrote") from error
    records: dict[str, Record] = {}
    for line in lines:
        try:
            record = json.loads(line)
            records[record["input"]] = record
        except (ValueError, KeyError, TypeError):
            log.warning("%s: a damaged line was left out", out / MANIFEST)
    return list(records.values())


class _Jobs:
    """The jobs of a run as they come; with `watch` there is always a next one to wait for."""

    def __init__(self, images: str | Path, out: Path, limit: int | None, watch: bool):
        self.images, self.out, self.limit, self.watch = images, out, limit, watch
        self.found = [] if watch else plan(images, out)[:limit]

    def __len__(self) -> int:
        return len(self.found)

    def __iter__(self) -> Iterator[Job]:
        yield from self.found
        while self.watch and (self.limit is None or len(self.found) < self.limit):
            for job in self._new():
                self.found.append(job)
                yield job
            time.sleep(_WATCH_SECONDS)

    def _new(self) -> list[Job]:
        try:
            jobs = plan(self.images, self.out)
        except InputError:  # an empty folder may fill
            return []
        seen, settled = {job.name for job in self.found}, time.time() - _WATCH_SECONDS
        # A file that was written to just now may still be on its way.
        return [job for job in jobs if job.name not in seen and job.path.stat().st_mtime < settled]


def plan(images: str | Path, out: Path) -> list[Job]:
    """What a run over `images` will do, in order; what lies in `out` itself is left out."""
    inside = out.resolve()
    paths = [path for path in list_images(images) if inside not in path.resolve().parents]
    root = _root(Path(images))
    names = [path.relative_to(root) for path in paths]
    stems = Counter(name.with_suffix("") for name in names)
    return [
        # a.jpg beside a.png: both keep their suffix, so that neither overwrites the other's results.
        Job(name.as_posix(), path, (name.with_suffix("") if stems[name.with_suffix("")] == 1 else name).as_posix())
        for name, path in zip(names, paths, strict=True)
    ]


def _root(images: Path) -> Path:
    """The folder that output paths are relative to; of a glob pattern, the part before the first wildcard."""
    if images.is_dir():
        return images
    parts = images.parent.parts
    fixed = next((i for i, part in enumerate(parts) if set(part) & set("*?[")), len(parts))
    return Path(*parts[:fixed])


def _label_one(segmenter: Segmenter, task: Task, job: Job, out: Path, writers: Mapping[str, Any]) -> Record:
    started = time.perf_counter()
    record: Record = {"input": job.name, "status": "failed"}
    try:
        data = job.path.read_bytes()
        record["sha256"] = hashlib.sha256(data).hexdigest()
        prediction = segmenter.predict(task, data)
    except KshotError as error:
        return record | {"reason": str(error).removeprefix("the image given as bytes: ")}
    except OSError as error:
        return record | {"reason": f"cannot be read: {error.strerror or error}"}
    except Exception as error:  # an unattended run survives what nobody foresaw, and says so
        log.exception("%s: unexpected", job.name)
        return record | {"reason": f"unexpected {type(error).__name__}: {error}"}
    outputs = {}
    for name, writer in writers.items():
        if hasattr(writer, "FOLDER"):
            outputs[name] = f"{writer.FOLDER}/{job.stem}{writer.WRITES[0]}"
            writer.write(prediction, out / outputs[name])
    return record | _facts(prediction, outputs) | {"seconds": round(time.perf_counter() - started, 4)}


def _facts(prediction: Prediction, outputs: dict[str, str]) -> Record:
    areas, regions = prediction.areas(), count_regions(prediction.mask)
    classes = {}
    for index, name in enumerate(prediction.classes, 1):
        inside = prediction.scores[index][prediction.mask == index]
        classes[name] = {
            "present": round(float(prediction.present[name]), 4),
            "pixels": areas[name],
            "regions": regions.get(index, 0),
            "score": round(float(inside.mean()), 4) if inside.size else 0.0,
        }
    return {
        "status": "done" if prediction.mask.any() else "empty",
        "size_hw": list(prediction.size_hw),
        "uncertainty": round(prediction.uncertainty, 4),
        "mask": outputs[MASKS],
        "outputs": outputs,
        "classes": classes,
    }


def _writers(formats: Sequence[str], export: Export) -> dict[str, Any]:
    writers: dict[str, Any] = {name: _plugins.load("formats", name) for name in dict.fromkeys([MASKS, *formats])}
    for writer in writers.values():
        if hasattr(writer, "prepare"):
            writer.prepare()
    return writers | ({instances.NAME: instances.Writer(export.instances)} if export.instances else {})


def _open_run(
    out: Path, task: Task, segmenter: Segmenter, notes: Mapping[str, Any], *, resume: bool, overwrite: bool
) -> dict[str, Record]:
    """Records of an earlier run that count, after refusing to mix two runs in one folder."""
    manifest, digest = out / MANIFEST, task.digest()
    done: dict[str, Record] = {}
    if manifest.exists() and not overwrite:
        if not resume:
            raise SettingError(f"{out}: holds the results of a run; continue it with --resume, or --overwrite it")
        before = json.loads((out / SETTINGS).read_text(encoding="utf-8")) if (out / SETTINGS).exists() else {}
        if before.get("task") != digest:
            raise SettingError(f"{out}: holds the results of another task; choose another folder, or --overwrite it")
        done = {record["input"]: record for record in read_manifest(out) if record["status"] != "failed"}
    settings = {
        "kshot": __version__,
        "task": digest,
        "classes": task.classes,
        "method": task.method,
        "method_settings": asdict(task.settings),
        "backbone": asdict(task.origin),
        "refiner": segmenter.refiner.__name__.rpartition(".")[2],
        "refiner_settings": asdict(segmenter.refiner_settings),
        **notes,
    }
    write_text(out / SETTINGS, json.dumps(settings, indent=2) + "\n")
    write_text(manifest, "".join(json.dumps(record) + "\n" for record in done.values()))
    return done


def _append(manifest: Path, record: Record) -> None:
    try:
        with manifest.open("a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")
    except OSError as error:
        raise OutputError(f"{manifest}: cannot be written ({error.strerror or error})") from error


def _close_run(
    out: Path, records: list[Record], classes: Sequence[str], writers: Mapping[str, Any], export: Export
) -> None:
    """Put the manifest in the order of the inputs and write the formats that are one file per folder."""
    write_text(out / MANIFEST, "".join(json.dumps(record) + "\n" for record in records))
    for writer in writers.values():
        if hasattr(writer, "write_folder"):
            writer.write_folder(out, records, classes, export)


def _is_there(out: Path, record: Record) -> bool:
    return all((out / path).is_file() for path in record.get("outputs", {}).values())
