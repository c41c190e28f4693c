"""What more shots do to the images of a run that were doubtful."""

from collections.abc import Callable, Collection, Iterable
from contextlib import suppress
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from statistics import mean

from kshot.errors import KshotError
from kshot.formats.kshot_run import ACCEPTED, limits_of_run
from kshot.io.manifest import FAILED, MANIFEST, is_begun, read_manifest, read_settings
from kshot.io.pages_and_frames import read_images
from kshot.io.paths import file_of
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
    for path, names in groups.items():
        with suppress(KshotError):  # an image that cannot be read is left out of the figure
            for name, image in read_images(dict.fromkeys(names, path), segmenter.band_selection, segmenter.max_pixels):
                limits = limits_of_run(settings, image.shape[:2], Thresholds())
                after = segmenter.predict(task, image).filtered(**asdict(limits)).uncertainty
                pairs.append((records[name]["uncertainty"], after))
                if progress:
                    progress(len(pairs), sum(map(len, groups.values())))
    if not pairs:
        return None
    return Effect(len(pairs), mean(before for before, _ in pairs), mean(after for _, after in pairs))


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
