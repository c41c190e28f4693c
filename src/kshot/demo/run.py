"""Write each case's folders, run it as `kshot label` would, and compare with the masks drawn by hand."""

import json
import shlex
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

from kshot.batch import label_folder
from kshot.demo.cases import CASES, Case, CaseResult, Crop
from kshot.demo.page import write_page
from kshot.errors import ImageReadError, SettingError
from kshot.formats.png import save_labels
from kshot.io.atomic import atomic_path, write_text
from kshot.io.images import read_mask
from kshot.metrics import IoUCounts
from kshot.report import REPORT, save_supports, write_report
from kshot.segmenter import Segmenter
from kshot.types import SupportSet

FORMATS = ("png", "overlay", "scores")


@dataclass
class Demo:
    """All cases. skipped: {case: why it could not be shown}."""

    report: Path
    backbone: str
    cases: list[CaseResult] = field(default_factory=list)
    skipped: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0

    @property
    def images(self) -> int:
        """Query images over all cases."""
        return sum(len(result.case.queries) for result in self.cases)


def run_demo(
    out: str | Path,
    *,
    backbone: str | None = None,
    overwrite: bool = False,
    progress: Callable[[Case], None] | None = None,
) -> Demo:
    """Run all cases into folders of `out` and write `out`/report.html over them.

    backbone: by default the Segmenter's. progress: called before each case. A case whose photograph is not installed
    is skipped with a remark. Raises `SettingError` when `out` holds something and `overwrite` is not set.
    """
    out, started = Path(out), time.perf_counter()
    if out.exists() and not overwrite and (not out.is_dir() or any(out.iterdir())):
        raise SettingError(
            f"{out}: holds something already; choose another folder (out, -o), or overwrite it (--overwrite)"
        )
    segmenter = Segmenter(backbone=backbone) if backbone else Segmenter()
    demo = Demo(out / REPORT, segmenter.feature_spec.backbone)
    for case in CASES:
        if progress:
            progress(case)
        try:
            demo.cases.append(run_case(case, out / case.name, segmenter, backbone))
        except ImageReadError as error:
            demo.skipped[case.name] = str(error)
    demo.seconds = round(time.perf_counter() - started, 2)
    write_page(demo.report, demo.cases, demo.skipped, segmenter)
    return demo


def run_case(case: Case, folder: Path, segmenter: Segmenter, backbone: str | None = None) -> CaseResult:
    """Write the case's support and image folders, label them into its result folder, and measure."""
    write_inputs(case, folder)
    support, images, result = folder / "support", folder / "images", folder / "result"
    parts = ["kshot", "label", str(support), str(images), "-o", str(result), "--format", ",".join(FORMATS)]
    command = shlex.join([*parts, *(["--backbone", backbone] if backbone else []), "--overwrite"])
    shots = SupportSet.from_folder(support)
    task = segmenter.fit(shots)
    notes = {"command": command, "images": str(images.resolve())}
    summary = label_folder(segmenter, task, images, result, formats=FORMATS, overwrite=True, notes=notes)
    save_supports(result, shots, task, segmenter.shot_reader)
    write_report(result)
    ious = {crop.name: _ious(case, crop, result) for crop in case.queries}
    return CaseResult(case, folder, command, summary.objects, ious)


def write_inputs(case: Case, folder: Path) -> None:
    """support/images, support/masks, support/classes.json and images/, as a user would have them."""
    for crop in case.supports:
        pixels, labels = crop.read()
        _save(pixels, folder / "support" / "images" / f"{crop.name}.png")
        save_labels(labels, folder / "support" / "masks" / f"{crop.name}.png")
    named = {str(label): name for label, name in enumerate(case.classes, 1)}
    write_text(folder / "support" / "classes.json", json.dumps(named) + "\n")
    for crop in case.queries:
        _save(crop.read()[0], folder / "images" / f"{crop.name}.png")


def _ious(case: Case, crop: Crop, result: Path) -> dict[str, float]:
    """{class: IoU with the mask drawn by hand} of the classes that the crop shows."""
    found = read_mask(result / "masks" / f"{crop.name}.png", drawn=False)
    truth = crop.read()[1]
    values = IoUCounts.from_masks(found, truth, len(case.classes)).iou()
    return {name: float(values[label]) for label, name in enumerate(case.classes, 1) if (truth == label).any()}


def _save(pixels: np.ndarray, path: Path) -> None:
    with atomic_path(path) as beside:
        Image.fromarray(pixels).save(beside, "PNG")
