"""What more shots do to the images of a run that were doubtful."""

from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from statistics import mean
from typing import Any

from kshot.errors import KshotError
from kshot.formats.kshot_run import ACCEPTED, limits_of_run
from kshot.io.manifest import FAILED, MANIFEST, is_begun, read_manifest, read_settings
from kshot.io.pages_and_frames import read_images
from kshot.io.paths import file_of
from kshot.io.videos import is_video
from kshot.memory import DEFAULT_FRAMES, MOST_FRAMES, FrameMemory
from kshot.methods.base import Task
from kshot.segmenter import Segmenter
from kshot.types import Shot, Thresholds


@dataclass(frozen=True)
class Effect:
    """Mean uncertainty, 0..1, of the same images before and after; images: how many."""

    images: int
    before: float
    after: float


def effect(
    segmenter: Segmenter,
    task: Task,
    run: Path,
    root: Path,
    leave_out: Collection[Path] = (),
    most: int = 20,
    progress: Callable[[int, int], None] | None = None,
) -> Effect | None:
    """The uncertainty of the `most` most doubtful images of a run, in its manifest and with a new task.

    root: where the images are. leave_out: resolved paths of images that became supports, `root`/film.mp4#000010 for a
    frame; a task is certain of its own supports, which would flatter the figure. progress: called with images done and
    in all. What is gone or changed since does not count; None when nothing is left. Raises `SettingError` when
    there is no manifest.
    """
    records = {r["input"]: r for r in read_manifest(run) if r["status"] != FAILED}
    doubtful = sorted(records, key=lambda name: (-records[name]["uncertainty"], name))
    others = (name for name in doubtful if (root / name).resolve() not in leave_out)
    groups: dict[Path, list[str]] = {}  # a video is decoded once
    for name in islice((name for name in others if (root / file_of(name)).is_file()), most):
        groups.setdefault(root / file_of(name), []).append(name)
    pairs: list[tuple[float, float]] = []
    settings = read_settings(run)
    frames = _frames_of(settings)
    for path, names in groups.items():
        follow = frames if is_video(path) or settings.get("memory") else 0
        needed = dict.fromkeys(_with_earlier(names, records, follow), path)
        film = FrameMemory(task, follow)
        with suppress(KshotError):  # an image that cannot be read is left out of the figure
            for name, image in read_images(needed, segmenter.band_selection, segmenter.max_pixels):
                prediction = segmenter.predict_frame(film, image)
                if name not in names:
                    continue
                limits = limits_of_run(settings, image.shape[:2], Thresholds())
                after = prediction.filtered(**asdict(limits)).uncertainty
                pairs.append((records[name]["uncertainty"], after))
                if progress:
                    progress(len(pairs), sum(map(len, groups.values())))
    if not pairs:
        return None
    return Effect(len(pairs), mean(before for before, _ in pairs), mean(after for _, after in pairs))


def _frames_of(settings: Mapping[str, Any]) -> int:
    """How many earlier frames a run compared a frame with."""
    given = settings.get("memory")
    if isinstance(given, int):
        return min(max(given, 0), MOST_FRAMES)
    return 0 if settings.get("tiling") else DEFAULT_FRAMES


def _with_earlier(names: Collection[str], records: Collection[str], frames: int) -> list[str]:
    """Frames, and those of a run that came before them within its memory, in order."""
    film = file_of(next(iter(names)))
    whole = sorted(name for name in records if file_of(name) == film)
    places = {before for name in names for before in range(whole.index(name) - frames, whole.index(name) + 1)}
    return [whole[place] for place in sorted(places) if place >= 0]


def effect_of_accepted(
    segmenter: Segmenter,
    task: Task,
    accepted: Path,
    added: Iterable[Shot],
    progress: Callable[[int, int], None] | None = None,
) -> Effect | None:
    """What labels that were added from a run, or from a folder in it such as OUT/accepted, do to its other images.

    added: the shots that became supports. progress: as `effect` has it. None when the folder lies in no run. Raises
    `SettingError`.
    """
    run = accepted.resolve() if is_begun(accepted) else accepted.resolve().parent
    accepted = run / ACCEPTED if is_begun(accepted) else accepted
    images = read_settings(run).get("images") if (run / MANIFEST).is_file() else None
    if not isinstance(images, str):
        return None
    supports = {Path(shot.image).resolve() for shot in added if isinstance(shot.image, str | Path)}
    masks = {r["input"]: Path(*Path(r["mask"]).parts[1:]) for r in read_manifest(run) if "mask" in r}
    supports |= {(Path(images) / name).resolve() for name, mask in masks.items() if (accepted / mask).is_file()}
    return effect(segmenter, task, run, Path(images), supports, progress=progress)
