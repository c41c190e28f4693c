"""What the results of each image are called."""

import itertools
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from pathlib import PurePosixPath

from kshot.io.images import SUFFIXES
from kshot.io.names import safe
from kshot.io.paths import file_of, may_hold_several

# Of the files that formats write; a folder of an image may be called like one of them.
_OF_RESULTS = (".png", ".jpg", ".npz", ".json", ".tif", ".geojson", ".gpkg", ".txt", ".xml", *SUFFIXES)


def unique_stems(names: Iterable[str], given: Mapping[str, str] | None = None) -> dict[str, str]:
    """{name: stem}: what the results of each name are called, without the suffix of their kind.

    No two results share a file, also where a file system takes letter cases or Unicode normal forms for one, and none
    is where a folder has to be; every stem is a path below the folder of results, whatever the name says. The stem is
    the name without its suffix; of a.jpg beside a.png both keep theirs; what is not unique then is numbered, a.jpg~2.
    Of a page or frame, such as a.tif#page0002 or a.mp4#000010, it is a/page0002 or a/000010; what may hold several
    keeps its suffix beside a folder of its name too.
    given: stems that names of this folder have already. They stay, whether the names are among `names` or not.
    """
    named = list(names)
    files = {name: file_of(name) for name in named}
    wanted = {file: _Wanted(file) for file in sorted(set(files.values()))}
    taken = _Taken(wanted.values())
    before = _by_file(given or {})
    for file, stem in before.items():
        taken.add(stem, may_hold_several(file))
    stems = before | _without_clashes({file: one for file, one in wanted.items() if file not in before}, taken)
    if len(set(map(_key, stems.values()))) < len(stems):
        raise AssertionError("two images would share their results")
    return {name: stems[file] + _number_of(name) for name, file in files.items()}


def _by_file(given: Mapping[str, str]) -> dict[str, str]:
    """Stems of files from those of images, pages and frames; without any that two files share."""
    stems = {file_of(name): stem.removesuffix(_number_of(name)) for name, stem in given.items()}
    counts = Counter(map(_key, stems.values()))
    return {file: stem for file, stem in stems.items() if counts[_key(stem)] == 1}


def _without_clashes(wanted: Mapping[str, "_Wanted"], taken: "_Taken") -> dict[str, str]:
    """The stems of files; those whose stems clash keep their suffix, and what clashes then is numbered."""
    kept: set[str] = set()
    while True:  # a.jpg and a.png keep their suffix, and so does a.jpg.png, whose stem is a.jpg
        asked = {file: one.full if file in kept else one.short for file, one in wanted.items()}
        keys = Counter(map(_key, asked.values()))
        clashing = {
            file
            for file, stem in asked.items()
            if file not in kept and (keys[_key(stem)] > 1 or not taken.fits(stem, wanted[file].several))
        }
        if not clashing:
            break
        kept |= clashing
    stems = {}
    # Those that keep no suffix are unique by now, so numbers go to the others alone.
    for file in sorted(wanted, key=lambda file: (file in kept, file)):
        one = wanted[file]
        stem = next(stem for stem in one.candidates(file in kept) if taken.fits(stem, one.several))
        taken.add(stem, one.several)
        stems[file] = stem
    return stems


class _Wanted:
    """The stems that a file may get, from the one that it should get."""

    def __init__(self, file: str):
        self.several = may_hold_several(file)
        self.full = safe(file)
        without = PurePosixPath(self.full).with_suffix("").as_posix()
        self.short = without if without.rpartition("/")[2].strip(".") else self.full

    def candidates(self, kept: bool) -> Iterator[str]:
        """Stems, the best first; kept: it keeps its suffix. There is always one more."""
        if not kept:
            yield self.short
        yield self.full
        for number in itertools.count(2):
            yield "/".join(f"{part}~{number}" for part in self.full.split("/"))


class _Taken:
    """The files and folders that stems need."""

    def __init__(self, wanted: Iterable[_Wanted]):
        self.files: set[str] = set()
        # Of those files that may hold several, whose pages or frames lie in a folder of their own.
        self.several: set[str] = set()
        self.folders: set[str] = set()
        # Stems whose results would be called like a folder.
        self.barred: set[str] = set()
        for folder in {one.full.rpartition("/")[0] for one in wanted}:
            self._add_folders(folder)

    def fits(self, stem: str, several: bool) -> bool:
        """Whether the results of this stem meet none of another."""
        key = _key(stem)
        if key in self.files or key in self.barred or (several and key in self.folders):
            return False
        above = _keys_above(stem.rpartition("/")[0])
        folders = above | {key} if several else above
        return not above & self.several and not {_without_suffix(folder) for folder in folders} & self.files

    def add(self, stem: str, several: bool) -> None:
        """Take a stem; what may hold several gets a folder of its own."""
        key = _key(stem)
        self.files.add(key)
        self._add_folders(stem if several else stem.rpartition("/")[0])
        if several:
            self.several.add(key)

    def _add_folders(self, folder: str) -> None:
        above = _keys_above(folder)
        if not above <= self.folders:
            self.folders |= above
            self.barred |= set(map(_without_suffix, above))


def _without_suffix(folder: str) -> str:
    """The stem whose result would be called like a folder, as a.png is of the stem a; "" where there is none."""
    suffix = PurePosixPath(folder).suffix
    return folder.removesuffix(suffix) if suffix in _OF_RESULTS else ""


def _key(path: str) -> str:
    """The same for all paths that some file system takes for one."""
    if path.isascii():
        return path.lower()
    return unicodedata.normalize("NFC", unicodedata.normalize("NFD", path).casefold())


@lru_cache(4096)
def _keys_above(folder: str) -> frozenset[str]:
    """The keys of a folder and of those that it lies in."""
    return frozenset(map(_key, [folder, *_parents(folder)])) if folder else frozenset()


def _parents(path: str) -> list[str]:
    return [parent.as_posix() for parent in PurePosixPath(path).parents][:-1]


def _number_of(name: str) -> str:
    """The page or frame of a name, as the end of its stem."""
    return name.removeprefix(file_of(name)).replace("#", "/")
