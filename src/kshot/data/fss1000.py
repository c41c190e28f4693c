"""FSS-1000: a thousand classes of ten images each.

Li et al. 2020. A mask is foreground from 128 on; one of another size than its image, as some of the published set are,
is brought to the image's size by nearest neighbour. 520 classes train, 240 validate, 240 test; all 2400 test images are
queries. The official lists are read from fss_train.txt, fss_val.txt and fss_test.txt in the root. Without them classes
are ordered by the SHA-256 of their names and cut at 52 % and 76 %, the same on every machine but not official.
"""

import hashlib
from functools import lru_cache, partial
from pathlib import Path

import numpy as np
from PIL import Image

from kshot.data._report import Problem, check_problems, read_list
from kshot.data.base import Dataset, Labels, LabelType, Sample, label_type
from kshot.errors import DatasetError, ImageReadError
from kshot.io.images import image_size
from kshot.io.paths import visible

LOOKS_FOR = "fss1000: <class>/1.jpg ... 10.jpg with 1.png ... 10.png, in the folder or in fewshot_data/"
N_CLASSES, N_TEST = 1000, 240
THRESHOLD = 128
_SPLITS = ("train", "val", "test")
_NUMBERS = tuple(str(n) for n in range(1, 11))


def load(root: Path, fold: int | None = None, strict: bool = False, cache: Path | None = None) -> Dataset:
    """Open FSS-1000. It has no folds; its splits hold different classes. Raises `DatasetError`."""
    home = locate(root)
    if home is None:
        raise DatasetError(f"{root}: no FSS-1000 here; looked for {LOOKS_FOR}")
    classes = _class_folders(home)
    groups, problems = _groups(home, classes)
    samples: dict[str, Sample] = {}
    lost: list[str] = []
    extra: list[str] = []
    for class_id, name in enumerate(classes, start=1):
        _add(home / name, class_id, label_type(len(classes)), samples, lost, extra)
    splits = {s: tuple(f"{c}/{n}" for c in groups[s] for n in _NUMBERS if f"{c}/{n}" in samples) for s in _SPLITS}
    return Dataset(
        name="fss1000",
        family="fss1000",
        root=home,
        layout=f"FSS-1000, {'lists in the root' if _listed(home) else 'classes split by hash'}",
        classes=classes,
        samples=samples,
        splits=splits,
        query_split="test",
        support_split="test",
        fold=fold,
        episodes={"hsnet": len(splits["test"])},
        problems=check_problems(
            home, strict, [*problems, Problem("images without a mask, or masks alone", tuple(lost))]
        ),
        shortfalls=partial(_shortfalls, extra=tuple(extra)),
        cache=cache,
    )


def read_binary(path: Path, image: Path, class_id: int, kind: LabelType) -> Labels:
    """(h, w) label map of a drawn mask at its image's size: class_id where its grey is at least 128.

    Raises `DatasetError`, and `ImageReadError` when the image has no readable size.
    """
    height, width = image_size(image)
    try:
        with Image.open(path) as drawn:
            grey = np.asarray(drawn.convert("L").resize((width, height), Image.Resampling.NEAREST))
    except (OSError, SyntaxError, ValueError) as error:
        raise DatasetError(f"{path}: not a readable mask ({error})") from error
    return np.where(grey >= THRESHOLD, kind(class_id), kind(0))


def locate(root: Path) -> Path | None:
    """The folder that the layout starts in, or None: its first class folders hold numbered images and no other names.

    The published set holds a few .jpeg files beside them.
    """
    for home in (root, root / "fewshot_data", root / "fewshot_data" / "fewshot_data", root / "FSS-1000"):
        some = _class_folders(home)[:3] if home.is_dir() else ()
        if some and all(_is_class(home / name) for name in some):
            return home
    return None


def _is_class(folder: Path) -> bool:
    names = {path.name for path in visible(folder) if path.suffix != ".jpeg"}
    whole = {f"{n}{suffix}" for n in _NUMBERS for suffix in (".jpg", ".png")}
    # A partial copy may lack a few files, but ten numbered images tell it from a folder of one's own.
    return len(names & whole) >= 10 and names <= whole


def _class_folders(home: Path) -> tuple[str, ...]:
    return tuple(path.name for path in visible(home) if path.is_dir())


def _add(
    folder: Path, class_id: int, kind: LabelType, samples: dict[str, Sample], lost: list[str], extra: list[str]
) -> None:
    """Add a class: its pairs to samples; to `lost` what has no other half, to `extra` the .jpeg files without use."""
    there = {path.name for path in folder.iterdir()}
    extra += [f"{folder.name}/{name}" for name in sorted(there) if name.endswith(".jpeg")]
    for n in _NUMBERS:
        pair = {f"{n}.jpg", f"{n}.png"} & there
        if len(pair) == 2:
            image, mask = folder / f"{n}.jpg", folder / f"{n}.png"
            read = partial(read_binary, mask, image, class_id, kind)
            samples[f"{folder.name}/{n}"] = Sample(image, read, mask)
        else:
            lost += [f"{folder.name}/{name}" for name in sorted(pair)]


def _listed(home: Path) -> bool:
    return (home / "fss_test.txt").is_file()


def _groups(home: Path, classes: tuple[str, ...]) -> tuple[dict[str, list[str]], list[Problem]]:
    """{split: its class names, sorted}, and the listed classes that have no folder."""
    if not _listed(home):
        ordered = sorted(classes, key=lambda name: hashlib.sha256(name.encode()).hexdigest())
        first, second = round(len(classes) * 0.52), round(len(classes) * 0.76)
        groups = (ordered[:first], ordered[first:second], ordered[second:])
        return {split: sorted(group) for split, group in zip(_SPLITS, groups, strict=True)}, []
    paths = {split: home / f"fss_{split}.txt" for split in _SPLITS}
    lists = {split: sorted(read_list(path)) if path.is_file() else [] for split, path in paths.items()}
    there = set(classes)
    problems = [
        Problem(f"classes of fss_{split}.txt without a folder", tuple(c for c in names if c not in there))
        for split, names in lists.items()
    ]
    return {split: [c for c in names if c in there] for split, names in lists.items()}, problems


def _shortfalls(dataset: Dataset, extra: tuple[str, ...] = ()) -> tuple[str, ...]:
    """Why a score here is no FSS-1000 score, and what was done to the files of a whole copy."""
    found = []
    if len(dataset.classes) < N_CLASSES or len(dataset.ids()) < 10 * N_TEST:
        tested = len({image.partition("/")[0] for image in dataset.ids()})
        found.append(
            f"{len(dataset.classes)} of {N_CLASSES} classes present, {tested} of {N_TEST} tested; not an FSS-1000 score"
        )
    if not _listed(dataset.root):
        found.append("no fss_test.txt: the classes are split by hash; not the official FSS-1000 split")
    seen = (
        Problem("masks of another size than their image, brought to its size (nearest)", _resized(dataset)),
        Problem(".jpeg files beside the numbered images, not read", extra),
    )
    return (*found, *(str(problem) for problem in seen if problem.ids))


@lru_cache(maxsize=1)  # the runs of a command ask for one data set, each anew
def _resized(dataset: Dataset) -> tuple[str, ...]:
    """The masks of the query split that are not of their image's size."""
    samples = [dataset.samples[image] for image in dataset.ids()]
    return tuple(_called(sample.source) for sample in samples if _differ(sample))


def _differ(sample: Sample) -> bool:
    try:
        return image_size(sample.image) != image_size(sample.source)
    except ImageReadError:  # said when it is read
        return False


def _called(path: Path) -> str:
    return f"{path.parent.name}/{path.name}"
