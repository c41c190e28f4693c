"""A run over a folder, from the plan to the formats that are one file per folder."""

import contextlib
import logging
import time
from collections import Counter
from collections.abc import Callable, Collection, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kshot import _plugins
from kshot._version import __version__
from kshot.annotations.advice import advice_of, left_out_of
from kshot.annotations.model import Export, as_objects
from kshot.annotations.statistics import MASKS
from kshot.batch.films import FilmPredictor, Films, with_earlier_frames
from kshot.batch.inputs import Images, Input, Inputs, Shard, common_root, roots_of
from kshot.batch.lanes import Lanes, lane_count
from kshot.batch.large_images import LargeImages, predict_tiled
from kshot.batch.object_table import check_table, to_table
from kshot.batch.protection import check_replaced, entries_of
from kshot.batch.run_folder import RunFolder
from kshot.batch.stages import ImageResult, Predict, Stages, overlapped
from kshot.errors import OutputError, SettingError, plural
from kshot.features import precision_of
from kshot.features.tiles import Tiling
from kshot.formats.base import AnnotationWriter, Format, ImageWriter, RowWriter, load_format
from kshot.formats.kshot_run import OBJECTS, ObjectWriter, annotations_of_run
from kshot.io.jsonl import LineWriter
from kshot.io.manifest import EMPTY, FAILED, Record, is_begun, read_manifest, stem_of
from kshot.io.rasters import BandSelection
from kshot.io.whole import is_whole
from kshot.memory import FrameMemory
from kshot.methods.base import Task
from kshot.ops.geometry import FeatureMap
from kshot.ops.processor import core_count
from kshot.segmenter import Segmenter
from kshot.tasks import task_of
from kshot.types import Prediction, Thresholds, patch_pixels

log = logging.getLogger(__name__)
# The least area of an object in an image of some height and width, in pixels.
LeastPixels = Callable[[Sequence[int]], float]
# Takes images through the stages, with so many workers; results may come back in any order.
Engine = Callable[[Iterable[Input | None], Stages, int | None], Generator[ImageResult]]
# (h, w): where an image has data; None where it has it everywhere.
ValidMask = NDArray[np.bool_] | None
_MOST_WORKERS = 4
_GPU_BATCH = 8
_LANE_VALUES = 2**27  # scores of all images that are inferred at once, half a gigabyte


def on_this_machine(inputs: Iterable[Input | None], stages: Stages, workers: int | None) -> Generator[ImageResult]:
    """The local engine: reading, inference and writing overlap."""
    if workers is None and stages.on_gpu:  # the cores have nothing else to do than to decode the next batch
        workers = min(stages.batch, core_count())
    elif workers is None:  # the inference keeps all cores busy by itself, and one reader feeds several of them
        workers = max(1, min(_MOST_WORKERS, core_count() // 4))
    return overlapped(
        inputs,
        stages.read,
        stages.infer,
        stages.write,
        workers,
        stages.encode,
        stages.batch,
        Lanes(stages.lanes),
        stages.is_alone,
    )


@dataclass
class Summary:
    """What a run did."""

    out: str
    total: int = 0
    """Images of the run, those of earlier runs included."""
    processed: int = 0
    objects: int = 0
    """Connected components over all masks, or the instances that were written; as many as files of objects hold."""
    empty: int = 0
    """Images in which nothing was found."""
    failed: int = 0
    skipped: int = 0
    """Images that an earlier run did."""
    seconds: float = 0.0
    interrupted: bool = False
    """Whether Ctrl-C ended it."""
    table: str = ""
    """Path of the table of objects, where one was asked for."""
    notes: tuple[str, ...] = ()
    """What the table lacks, in sentences."""
    advice: str = ""
    """What to do where the masks of the whole run are doubtful, a sentence."""
    left_out: str = ""
    """How many pieces were left out as specks and what keeps them, a sentence; where objects are split or tabled."""
    failures: list[dict[str, str]] = field(default_factory=list)
    """Input and reason of each failed image."""

    def count(self, record: Record) -> None:
        """Add one record."""
        self.processed += 1
        self.objects += sum(facts["objects"] for facts in record.get("classes", {}).values())
        self.empty += record["status"] == EMPTY
        if record["status"] == FAILED:
            self.failed += 1
            self.failures.append({"input": record["input"], "reason": record["reason"]})


def label_folder(
    segmenter: Segmenter,
    task: Task | str | Path,
    images: Images,
    out: str | Path,
    *,
    formats: Sequence[str] = ("png", "overlay"),
    export: Export | None = None,
    resume: bool = False,
    overwrite: bool = False,
    limit: int | None = None,
    watch: bool = False,
    tiling: Tiling | None = None,
    skip: Collection[Path] = (),
    every: int = 1,
    memory: int | None = None,
    sequence: bool = False,
    workers: int | None = None,
    batch: int | None = None,
    engine: Engine = on_this_machine,
    shard: Shard | None = None,
    keep: Collection[Path] = (),
    thresholds: Thresholds | None = None,
    table: str | None = None,
    pixel_size: str | None = None,
    notes: Mapping[str, Any] | None = None,
    progress: Callable[[Record, int, int], None] | None = None,
) -> Summary:
    """Masks of all images of a folder, glob pattern or file, or of several, into `out`.

    Pages and frames are images of their own; names are relative to the folder that holds all images.

    task: or the path of a task file. formats: names from `kshot.names("formats")`; index masks are always written.
    export: polygons or masks, and whether masks are split into objects. notes: kept in settings.json.
    tiling: large images are cut into tiles, and TIFFs too large for the memory are read, predicted and written in
    windows. watch: after the last image keep looking for new ones until Ctrl-C.
    skip: resolved paths of images to leave out. every: each `every`-th frame of a video is taken.
    memory: how many earlier frames of a film the next one is compared with, beside the supports; 0 does each by itself.
    By default 5, or 0 with tiles. Where it is given, pages of a TIFF count as slices of a stack, with the same memory.
    sequence: all images are frames of one film, or slices of one stack, in the order of their names.
    workers: threads that read, and as many that write, beside the inference; 0 does one thing after another; None takes
    one for every four cores, beside a GPU more. On a CPU the images of a larger folder are inferred several at once.
    batch: images of one shape that are encoded together; None takes 8 on a GPU, and 1 on a CPU, which gains nothing.
    engine: who does it; `ray_engine.on_ray` spreads the images over a cluster, whose actors `workers` counts then; None
    takes what the cluster has.
    shard: one part of the folder, for several machines that share `out`; the last to end leaves what one run would.
    keep: files and folders beside the images that are read, such as supports, and must not be replaced.
    thresholds: what of each prediction is kept; without them components below `SPECK_PATCHES` patch tokens are not.
    table: name of a .csv or .parquet in `out` with a row per object, and pixel_size: both as `kshot.to_table` has them.
    progress: called after each image with its record, how many are through, and how many there are.
    Broken images become failed lines. Ctrl-C ends the run in order, with `interrupted` set.
    Raises `SettingError` when `out` holds another run, or files that would be replaced and that no run made (with
    `overwrite` they are, unless the run reads them), `InputError` without images, `BackboneMismatchError` before the
    first image, `OutputError` when nothing can be written or another run is writing there.
    """
    out, started = Path(out), time.perf_counter()
    if workers is not None and workers < 0:
        raise SettingError(f"{workers} workers; expected 0 or more")
    if batch is not None and batch < 1:
        raise SettingError(f"a batch of {batch} images; expected 1 or more")
    check_table(table, pixel_size)
    export, thresholds = export or Export(), thresholds or Thresholds()
    task = task_of(task)
    task.check_backbone(segmenter.feature_spec.identity)
    films = Films.of(
        memory, sequence, tiled=tiling is not None, spread=shard is not None or engine is not on_this_machine
    )
    tile = tiling.tile if tiling else None
    least = partial(_least_pixels, thresholds, task.feature_spec.size, task.feature_spec.patch, tile)
    writers = _writers(formats, export, least)
    given = {} if overwrite else stems_of_run(out)
    inputs = Inputs(images, out, limit=limit, watch=watch, shard=shard, skip=skip, every=every, given=given)
    settings = settings_of_run(segmenter, task, writers, export, thresholds) | {
        "images": str(common_root(images).resolve()),
        "tiling": tiling and asdict(tiling),
        **({"look": asdict(segmenter.band_selection)} if segmenter.band_selection != BandSelection() else {}),
        **({"thresholds": asdict(thresholds)} if thresholds != Thresholds() else {}),
        **({"every": every} if every != 1 else {}),
        **({"table": table, "pixel_size": pixel_size} if table else {}),
        **({"memory": memory} if memory is not None else {}),
        **({"sequence": True} if sequence else {}),
        **(notes or {}),
    }
    film = FilmPredictor(segmenter, FrameMemory(task, films.frames), films)
    stages = _stages(film, tiling, writers, out.absolute(), thresholds, least, batch, inputs.planned)
    summary = Summary(str(out))
    check_replaced(
        out,
        [*entries_of(writers.values()), *([table] if table else [])],
        [*roots_of(images), *keep],
        overwrite=overwrite,
    )
    for source in inputs.files:
        if source.problem:
            log.warning("%s: will fail: %s", source.name, source.problem)
    with RunFolder(out, shard) as folder:
        done = folder.open(settings, resume=resume, overwrite=overwrite)
        records: dict[str, Record] = {}

        def is_done(source: Input) -> bool:
            ours = source.name in done and given.get(source.name) == source.stem
            if not ours or not _is_whole(out, done[source.name]):
                return False
            records[source.name] = done[source.name]
            summary.skipped += 1
            return True

        results = engine(with_earlier_frames(inputs, is_done, films), stages, workers)
        with _keeping(folder):
            manifest, timing = LineWriter(folder.manifest), LineWriter(folder.timing)
            try:
                for result in results:
                    if result.source.done:
                        continue
                    records[result.record["input"]] = result.record
                    manifest.append(result.record)
                    timing.append({"input": result.record["input"], **result.seconds})
                    summary.count(result.record)
                    log.info("%s: %s, %s", result.record["input"], result.record["status"], result.seconds)
                    if progress:
                        progress(result.record, len(records), len(inputs))
            except KeyboardInterrupt:
                summary.interrupted = not watch
            finally:
                results.close()
        _check_kept(out, records.values())
        with _keeping(folder), folder.merging():
            # What an earlier run did beyond this one's limit stays in the manifest.
            kept = [done[name] for name in folder.own - records.keys() if _is_whole(out, done[name])]
            whole = folder.close([*records.values(), *kept])
            _write_folders(out, whole, task.classes, writers, export)
            if table:
                measured = to_table(out, pixel_size=pixel_size)
                summary.table = str(measured.save(out / table))
                summary.notes = tuple(measured.skipped.lines)
    summary.advice = advice_of(whole, settings["presence_threshold"])
    summary.left_out = left_out_of(whole, thresholds.min_area) if export.instances or table else ""
    summary.total, summary.seconds = len(inputs), round(time.perf_counter() - started, 3)
    return summary


def _stages(
    film: FilmPredictor,
    tiling: Tiling | None,
    writers: Mapping[str, Format],
    out: Path,
    thresholds: Thresholds,
    least: LeastPixels,
    batch: int | None,
    images: int,
) -> Stages:
    segmenter, task = film.segmenter, film.memory.task
    predict: Predict = partial(_tiled, segmenter, task, tiling) if tiling else partial(_whole, film)
    on_gpu = segmenter.backbone.device.type != "cpu"
    return Stages(
        partial(_filtered, predict, thresholds, least),
        writers,
        out,
        segmenter.max_pixels,
        segmenter.band_selection,
        LargeImages(segmenter, task, tiling, writers, out, thresholds, least) if tiling else None,
        on_gpu=on_gpu,
        features_of=None if tiling else partial(segmenter.features_of, size=task.feature_spec.size),
        batch=(_GPU_BATCH if on_gpu else 1) if batch is None else batch,
        lanes=1 if on_gpu or film.films.sequence or tiling else lane_count(images),
        lane_pixels=_LANE_VALUES // (len(task.classes) + 1),
    )


def _tiled(
    segmenter: Segmenter,
    task: Task,
    tiling: Tiling,
    source: Input,
    image: NDArray[np.uint8],
    valid_mask: ValidMask,
    features: FeatureMap | None = None,
) -> Prediction:
    return predict_tiled(segmenter, task, tiling, image, valid_mask)


def _whole(
    film: FilmPredictor,
    source: Input,
    image: NDArray[np.uint8],
    valid_mask: ValidMask,
    features: FeatureMap | None = None,
) -> Prediction:
    return film(source, image, features).with_valid_mask(valid_mask)


def _filtered(
    predict: Predict,
    thresholds: Thresholds,
    least: LeastPixels,
    source: Input,
    image: NDArray[np.uint8],
    valid_mask: ValidMask,
    features: FeatureMap | None = None,
) -> Prediction:
    limits = replace(thresholds, min_area=least(image.shape[:2]))
    return predict(source, image, valid_mask, features).filtered(**asdict(limits))


def _least_pixels(thresholds: Thresholds, size: int, patch: int, tile: int | None, size_hw: Sequence[int]) -> float:
    return thresholds.least_pixels(size_hw, patch_pixels(size_hw, size, patch, tile))


def settings_of_run(
    segmenter: Segmenter, task: Task, writers: Mapping[str, Format], export: Export, thresholds: Thresholds
) -> dict[str, Any]:
    """What settings.json says of how masks are made and written."""
    return {
        "kshot": __version__,
        "task": task.digest(),
        "classes": task.classes,
        "presence_threshold": task.presence_threshold if thresholds.min_presence is None else thresholds.min_presence,
        "method": task.method,
        **task.source_facts(),
        "method_settings": asdict(task.settings),
        "backbone": asdict(task.feature_spec),
        "dtype": str(segmenter.backbone.dtype).removeprefix("torch."),
        "engine": precision_of(segmenter.backbone),
        "refiner": _plugins.name_of(segmenter.refiner),
        "refiner_settings": asdict(segmenter.refiner_settings),
        "formats": [name for name in writers if name != OBJECTS],
        "export": asdict(export),
        **({"size_choice": task.size_choice.to_dict()} if task.size_choice else {}),
        **({"objects": _shapes_of(task)} if export.instances == "learned" else {}),
    }


def _shapes_of(task: Task) -> dict[str, dict[str, Any]]:
    """What the objects of each class are like. Raises `SettingError` for a class without any."""
    shapes = task.object_shapes
    missing = [name for name in task.classes if name not in shapes]
    if missing:
        raise SettingError(
            f"instances (--instances) learned: no support's mask shows an object of {', '.join(missing)}; use watershed"
        )
    return {name: asdict(shape) for name, shape in shapes.items()}


def _writers(formats: Sequence[str], export: Export, least: LeastPixels) -> dict[str, Format]:
    writers = {name: load_format(name) for name in dict.fromkeys([MASKS, *formats])}
    for name, writer in writers.items():
        if not (isinstance(writer, ImageWriter) or (isinstance(writer, AnnotationWriter) and writer.output)):
            raise SettingError(f"the format {name} is not written by a run; choose another one")
        writer.prepare()
    return writers | ({OBJECTS: ObjectWriter(export.instances, least)} if export.instances else {})


def _write_folders(
    out: Path, records: Sequence[Record], classes: Sequence[str], writers: Mapping[str, Format], export: Export
) -> None:
    """Write the formats that are made of the whole run and have a place of their own in it."""
    asked = [w for w in writers.values() if isinstance(w, AnnotationWriter) and w.output]
    if not asked:
        return
    annotations = as_objects(annotations_of_run(out, records, classes))
    if len(asked) > 1:  # run lengths are small, and reading the masks once a format is slow
        annotations = replace(annotations, images=list(annotations.images))
    for writer in asked:
        rest = annotations
        if isinstance(writer, RowWriter):  # windows are written already, and may be too large to be read whole
            rest = as_objects(annotations_of_run(out, records, classes, without=writer.name))
        writer.write_annotations(rest, out, export)


@contextlib.contextmanager
def _keeping(folder: RunFolder) -> Iterator[None]:
    """Say of a run that cannot go on that nothing is lost, unless somebody removed it."""
    try:
        yield
    except OutputError as error:
        if not folder.manifest.exists():
            raise OutputError(
                f"{folder.manifest}: was removed during the run; start again with --overwrite (overwrite=True)"
            ) from error
        raise OutputError(
            f"{error}; the images that are done are kept: when there is room, continue with --resume (resume=True)"
        ) from error


def stems_of_run(out: Path) -> dict[str, str]:
    """What the results of images of earlier runs are called, where no two have one name; none in a new folder."""
    records = read_manifest(out) if is_begun(out) else []
    stems = {record["input"]: stem for record in records if (stem := stem_of(record))}
    counts = Counter(stems.values())
    return {name: stem for name, stem in stems.items() if counts[stem] == 1}


def _is_whole(out: Path, record: Record) -> bool:
    return all(is_whole(out / path) for path in record.get("outputs", {}).values())


def _check_kept(out: Path, records: Iterable[Record]) -> None:
    """Raise `OutputError` when somebody removed results during the run."""
    lost = [
        record["input"]
        for record in records
        if not all((out / path).is_file() for path in record.get("outputs", {}).values())
    ]
    if lost:
        raise OutputError(
            f"{out}: results of {plural(len(lost), 'image')}, such as {lost[0]}, were removed during the run; "
            "make them again with --resume (resume=True)"
        )
