"""Labels that a person corrected or accepted in a run's folder, as supports; what is as the run wrote it is none."""

import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import binary_dilation

from kshot.annotations.shots import class_order
from kshot.annotations.statistics import hash_of_labels
from kshot.errors import SupportError
from kshot.formats.kshot_run import ACCEPTED, read_reviewed
from kshot.io.class_masks import read_class_mask
from kshot.io.images import read_mask
from kshot.io.manifest import Record, is_begun, read_manifest, read_settings, stem_of
from kshot.types import IGNORE, MaskLike, Shot, SupportSet


def read_added(place: Path) -> SupportSet:
    """Supports to add to others: of a run (its `accepted` and `masks`), of a folder in one, or any support folder.

    Of a run's own labels, of any format, those alone that a person changed, or put into `accepted`; the notes say how
    many. Raises as `SupportSet.from_folder`, and `SupportError` where all labels are as the run wrote them.
    """
    place = Path(place)
    reviewed = read_reviewed(place)
    if reviewed is not None:
        return SupportSet(reviewed, class_order(reviewed), str(place), reviewed.skipped.lines)
    supports, run = SupportSet.from_folder(place), place.parent
    if not is_begun(run):
        return supports
    is_written = _WrittenLabels(run)
    made = [shot for shot in supports if not is_written(shot)]
    if not made:
        raise SupportError(
            f"{place}: its labels ({len(supports)}) are as the run wrote them, so nobody has judged them; correct "
            f"some, or copy masks that are right to {run / ACCEPTED}"
        )
    told = (
        f"{place}: {len(made)} changed by a person, {len(supports) - len(made)} not taken, since nobody has judged them"
    )
    return SupportSet(made, source=supports.source, notes=[*supports.notes, told], failures=supports.failures)


class _WrittenLabels:
    """Whether a shot shows what a run found in its image, as far as the formats that it wrote can hold it."""

    def __init__(self, run: Path):
        settings = read_settings(run)
        self.run, self.classes = run, [str(name) for name in settings.get("classes", ())]
        images, export = settings.get("images"), settings.get("export")
        records = [record for record in read_manifest(run) if "mask" in record]
        self.by_image = {(Path(str(images)) / record["input"]).resolve(): record for record in records}
        self.by_stem = {stem_of(record): record for record in records}
        # Polygons may have left the edge by so much; one pixel more is lost where they are painted.
        tolerance = float(export.get("tolerance", 0)) if isinstance(export, dict) and export.get("polygons") else 0.0
        self.reach = math.ceil(tolerance) + 1 if tolerance else 0

    def __call__(self, shot: Shot) -> bool:
        record = self._record(Path(shot.image)) if isinstance(shot.image, str | Path) else None
        if record is None or shot.mask is None or not set(shot.classes) <= set(self.classes):
            return False
        labels = self._labels(shot.mask, shot.label)
        if hash_of_labels(labels) == record.get("mask_sha256"):
            return True
        found = read_mask(self.run / record["mask"], drawn=False) if self.reach else labels
        if not self.reach or found.shape != labels.shape:
            return False
        near = binary_dilation(_edges(found), iterations=self.reach)
        return bool(near[found != labels].all())

    def _record(self, image: Path) -> Record | None:
        """The record of an image; formats hold links to images, or copies under the stems of their masks."""
        inside = image.relative_to(self.run).parts[1:] if image.is_relative_to(self.run) else ()
        stems = [Path(*parts).with_suffix("").as_posix() for parts in (inside, inside[1:]) if parts]
        found = (self.by_stem[stem] for stem in stems if stem in self.by_stem)
        return self.by_image.get(image.resolve()) or next(found, None)

    def _labels(self, mask: MaskLike, named: str | Mapping[int, str]) -> NDArray[np.uint8]:
        """The mask (h, w) of a shot in the labels of the run."""
        if isinstance(named, str):
            pixels = read_class_mask(mask).pixels
            return np.where(pixels == 1, self.classes.index(named) + 1, pixels).astype(np.uint8)
        table = np.full(256, IGNORE, np.uint8)
        table[0] = 0
        for label, name in named.items():
            table[label] = self.classes.index(name) + 1
        labels: NDArray[np.uint8] = table[read_mask(mask, drawn=False)]
        return labels


def _edges(labels: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """(h, w) whether a pixel has another label than one below or right of it, or is that one."""
    edges = np.zeros(labels.shape, np.bool_)
    down, right = labels[1:] != labels[:-1], labels[:, 1:] != labels[:, :-1]
    edges[1:] |= down
    edges[:-1] |= down
    edges[:, 1:] |= right
    edges[:, :-1] |= right
    return edges
