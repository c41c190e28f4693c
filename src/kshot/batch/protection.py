"""What a run may replace: its own results, and with `overwrite` those of an earlier run; never what it reads."""

from collections.abc import Collection, Iterable, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from kshot.errors import OutputError, SettingError, UnknownNameError
from kshot.formats.base import AnnotationWriter, Format, ImageWriter, RowWriter, load_format
from kshot.io.atomic import is_abandoned
from kshot.io.jsonl import read_object
from kshot.io.manifest import SETTINGS, is_begun, read_manifest, read_settings, stem_of
from kshot.io.names import below

_OF_REPORT = ("report.html", "supports")


def entries_of(writers: Iterable[Format]) -> set[str]:
    """Names of what a run writes directly in its folder, besides its manifest and settings."""
    names = set(_OF_REPORT)
    for writer in writers:
        if isinstance(writer, ImageWriter | RowWriter):
            names.add(PurePosixPath(writer.path_of("x")).parts[0])
        if isinstance(writer, AnnotationWriter) and writer.output:
            names.add(writer.output)
    return names


def check_replaced(out: Path, entries: Collection[str], keep: Iterable[Path], *, overwrite: bool) -> None:
    """Refuse a run that would replace files which no run made, or which it reads itself. Raises `SettingError`.

    entries: what it writes directly in `out`. keep: files and folders that it reads.
    """
    begun = is_begun(out)
    if begun and overwrite:
        entries = {*entries, *entries_of(_earlier_writers(out)), *_earlier_table(out)}
    there = sorted(name for name in entries if _holds_files(out / name))
    settings = read_object(out / SETTINGS) if (out / SETTINGS).is_file() else None
    if settings is not None and not begun and not {"kshot", "task"} <= settings.keys():
        there.append(SETTINGS)
    place = out.resolve()
    for each in (path.resolve() for path in keep):
        if each == place and not begun:
            raise SettingError(
                f"{out}: is read itself, and results would mix with what it holds; choose another folder"
            )
        around = each == place or (not begun and each in place.parents)
        replaced = [name for name in there if (place / name) == each or (place / name) in each.parents]
        if overwrite and around:
            replaced = there
        if replaced:
            raise SettingError(
                f"{out}: {_listed(replaced)} in it would be replaced, and {each} is read; choose another folder"
            )
    if there and not begun and not overwrite:
        raise SettingError(
            f"{out}: holds {_listed(there)}, which no run of kshot made; choose another folder, or replace what has "
            "the same name (overwrite, --overwrite)"
        )


def remove_results(out: Path) -> None:
    """Remove the files of an earlier run, so that none stays of an image that is gone. Raises `OutputError`."""
    records = read_manifest(out)
    stems = {stem for record in records if (stem := stem_of(record))}
    old = [path for record in records for path in record.get("outputs", {}).values()]
    files = [out / path for path in old if _without_folders(path, 1) & stems]
    files += [out / name for name in _earlier_table(out)]
    for writer in _earlier_writers(out):
        if isinstance(writer, AnnotationWriter) and writer.output:
            whole = out / writer.output
            files += [whole] if whole.is_file() else []
            # Such as yolo/images/a.jpg and yolo/labels/a.txt; what a person put beside them stays.
            parts = {path: path.relative_to(whole).as_posix() for path in whole.rglob("*")}
            files += [path for path, name in parts.items() if not path.is_dir() and _without_folders(name, 2) & stems]
    try:
        for path in files:
            below(out, path).unlink(missing_ok=True)
    except OSError as error:
        raise OutputError(f"{out}: old results cannot be removed ({error.strerror or error})") from error


def _earlier_writers(out: Path) -> list[Format]:
    """The formats of the run in a folder, as far as there are such."""
    settings: Mapping[str, Any] = read_settings(out)
    found = []
    for name in settings.get("formats", ()):
        try:
            found.append(load_format(name))
        except (UnknownNameError, TypeError, AttributeError):
            continue
    return found


def _earlier_table(out: Path) -> list[str]:
    """The name of the table of the run in a folder, if it wrote one."""
    name = read_settings(out).get("table")
    return [name] if isinstance(name, str) and PurePosixPath(name).name == name else []


def _without_folders(path: str, most: int) -> set[str]:
    """A path without suffix and without up to `most` folders in front."""
    parts = PurePosixPath(path).parts
    return {PurePosixPath(*parts[start:]).with_suffix("").as_posix() for start in range(min(most + 1, len(parts)))}


def _holds_files(path: Path) -> bool:
    return path.is_file() or (
        path.is_dir() and any(not (each.is_dir() or is_abandoned(each)) for each in path.rglob("*"))
    )


def _listed(names: list[str]) -> str:
    return ", ".join(names[:5])
