"""What a data set has and what it lacks, in words."""

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from kshot.errors import DatasetError, plural


class Problem(NamedTuple):
    """Something that the data set lacks: what ("images without a mask"), and of which images or files."""

    what: str
    ids: tuple[str, ...]

    def __str__(self) -> str:
        some = ", ".join(self.ids[:3]) + (", ..." if len(self.ids) > 3 else "")
        what = re.sub(r"^(images|masks|\.jpeg files)", lambda found: found[0][:-1], self.what)
        return f"{len(self.ids)} {what if len(self.ids) == 1 else self.what}: {some}"


class ClassCount(NamedTuple):
    """images: how many hold the class at all; pairs: how many hold enough of it for an episode."""

    class_id: int
    name: str
    images: int
    pairs: int


@dataclass(frozen=True)
class DatasetReport:
    """What is there and what is missing. shortfalls: what to know of a score on it."""

    name: str
    family: str
    root: Path
    layout: str
    split: str
    splits: Mapping[str, int]
    classes: tuple[ClassCount, ...]
    problems: tuple[Problem, ...]
    shortfalls: tuple[str, ...]

    @property
    def present(self) -> int:
        """Classes that at least one image of the split holds."""
        return sum(count.images > 0 for count in self.classes)

    def lines(self) -> list[str]:
        """The report in plain words, one fact a line."""
        sizes = ", ".join(f"{split} {size}" for split, size in self.splits.items())
        told = [f"{self.name} ({self.family}) in {self.root}", f"layout: {self.layout}", f"images: {sizes}"]
        told.append(f"classes in {self.split}: {self.present} of {len(self.classes)}")
        told += [
            f"  {c.name}: {plural(c.images, 'image')}, {plural(c.pairs, 'pair')}" for c in self.classes if c.images
        ]
        absent = [c.name for c in self.classes if not c.images]
        if absent:
            told.append(f"absent: {', '.join(absent[:20])}" + (", ..." if len(absent) > 20 else ""))
        return told + [f"missing: {problem}" for problem in self.problems] + list(self.shortfalls)


def check_problems(root: Path, strict: bool, problems: Iterable[Problem]) -> tuple[Problem, ...]:
    """The problems that are any; `strict` raises `DatasetError` with all of them instead."""
    real = tuple(problem for problem in problems if problem.ids)
    if real and strict:
        raise DatasetError(f"{root}: {'; '.join(map(str, real))}; add what is missing, or go on without strict")
    return real


def split_samples(
    lists: Mapping[str, Sequence[str]], samples: Collection[str]
) -> tuple[dict[str, tuple[str, ...]], list[Problem]]:
    """{split: the ids of its list that are among the samples}, and the ids that are not."""
    absent = [
        Problem(f"images of {name}.txt without a file or a mask", tuple(i for i in ids if i not in samples))
        for name, ids in lists.items()
    ]
    return {name: tuple(i for i in ids if i in samples) for name, ids in lists.items()}, absent


def read_list(path: Path) -> list[str]:
    """The entries of a list file: the first word of each line that has one, each once. Raises `DatasetError`."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DatasetError(f"{path}: a list of images was expected here ({error})") from error
    return list(dict.fromkeys(line.split()[0] for line in text.splitlines() if line.strip()))
