"""Whatever the names of images are, no two share a result, and none is written outside the folder."""

import unicodedata
from pathlib import PurePosixPath

from hypothesis import given
from hypothesis import strategies as st

from kshot.io.names import leads_out, odd_characters, printable
from kshot.io.paths import file_of, may_hold_several
from kshot.io.stems import unique_stems

_STEMS = st.sampled_from(["a", "A", "b", "é", "e\u0301", "É", "ß", "ss", "a.jpg", "a.png", "a~2", "page0001", "..."])
_SUFFIXES = st.sampled_from(["", ".jpg", ".JPG", ".png", ".tif", ".mp4", ".jpg.png", ".jpg~2", "~2"])
_PARTS = st.builds(str.__add__, _STEMS, _SUFFIXES)
USUAL = st.sets(st.lists(_PARTS, min_size=1, max_size=3).map("/".join), min_size=1, max_size=9)
# Anything that an annotation file may say, paths of Windows and bytes that are no text included.
ODD = st.sampled_from(
    ["", "/", "..", "../../etc/passwd", "C:\\a\\b.png", "c:x.jpg", "\\\\host\\a.png", "a\0.png", "\udcff"]
)
ANY = st.sets(st.one_of(ODD, st.text(max_size=12), st.lists(_PARTS, max_size=3).map("/".join)), max_size=9)
_RESULTS = (".png", ".json", ".jpg")


def _as_a_file_system_has_it(path: str) -> str:
    return unicodedata.normalize("NFC", unicodedata.normalize("NFD", path).casefold())


def _check(stems: dict[str, str]) -> None:
    assert not any(leads_out(stem) or odd_characters(stem) for stem in stems.values())
    pages = {f"{stem}/page0001" for name, stem in stems.items() if may_hold_several(file_of(name))}
    everything = [*stems.values(), *(page for page in pages if page not in stems.values())]
    files = [_as_a_file_system_has_it(stem + suffix) for stem in everything for suffix in _RESULTS]
    assert len(set(files)) == len(files)
    folders = {parent.as_posix() for file in files for parent in PurePosixPath(file).parents}
    assert not folders & set(files)
    assert not pages & set(stems.values())


@given(USUAL)
def test_no_two_files_of_a_folder_share_a_result(names: set[str]) -> None:
    stems = unique_stems(names)
    assert set(stems) == names
    _check(stems)
    assert stems == unique_stems(sorted(names, reverse=True))


@given(ANY)
def test_whatever_an_annotation_file_says_its_results_stay_below_the_folder(names: set[str]) -> None:
    _check(unique_stems(names))


@given(USUAL, USUAL)
def test_files_that_come_later_take_no_stem_of_those_before(first: set[str], later: set[str]) -> None:
    before = unique_stems(first)
    both = unique_stems(later, before)
    assert {name: both[name] for name in first & later} == {name: before[name] for name in first & later}
    _check(before | both)


@given(st.sets(st.text("abc/", min_size=1, max_size=6).filter(lambda name: name == name.strip("/").replace("//", "/"))))
def test_names_without_clashes_lose_their_suffix_alone(stems: set[str]) -> None:
    folders = {parent.as_posix() for stem in stems for parent in PurePosixPath(stem).parents}
    assert unique_stems(f"{stem}.jpg" for stem in stems - folders) == {f"{stem}.jpg": stem for stem in stems - folders}


@given(st.sets(st.text(max_size=6) | st.sampled_from(["\\n", "\n", "\\", "\\\\", "\u2028", "\udcff", "\\xff"])))
def test_escaped_names_are_as_many_as_the_names(names: set[str]) -> None:
    assert len({printable(name) for name in names}) == len(names)
    for name in names:
        printable(name).encode()
        assert len(printable(name).splitlines()) <= 1
