"""kshot.toml: defaults of options, kept with a project or beside its images.

::

    backbone = "dinov2-small"   # of all commands that have this option
    [predict]
    format = "png,coco"         # of this command
"""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from kshot.errors import SettingError

NAME = "kshot.toml"
_OF_A_PROJECT = (".git", "pyproject.toml")


def find_config(typed: Iterable[str]) -> Path | None:
    """The kshot.toml that counts: of this folder, of the project around it, or beside a path that was typed.

    The project ends at the nearest folder that holds .git or pyproject.toml. The first that is found counts alone.
    """
    return next((folder / NAME for folder in _places(typed) if (folder / NAME).is_file()), None)


def _places(typed: Iterable[str]) -> Iterator[Path]:
    yield Path()
    here = Path.cwd()
    for folder in [here, *here.parents]:
        if any((folder / mark).exists() for mark in _OF_A_PROJECT):
            yield from (parent for parent in here.parents if parent.is_relative_to(folder))
            break
    yield from dict.fromkeys(Path(text).absolute().parent for text in typed if text[:1] != "-" and _exists(text))


def _exists(text: str) -> bool:
    try:
        return Path(text).exists()
    except (OSError, ValueError):  # too long for a name, or no name at all
        return False


def read_config(path: Path, commands: Mapping[str, Iterable[str] | None]) -> dict[str, Any]:
    """Defaults by command: top-level keys count for all commands that have such an option, a [command] table for one.

    They rank below options and KSHOT_* variables. commands: names of each one's options, None for a group of commands.
    Raises `SettingError` when the file is not TOML, names a command or an option that there is not, or a
    Python file as the method: images may come with a kshot.toml of somebody else.
    """
    import tomllib  # help does without

    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise SettingError(f"{path}: not TOML ({error})") from error
    if _names_a_file(values):
        raise SettingError(
            f"{path}: a method that is a Python file runs only where a person names it: --method or KSHOT_METHOD"
        )
    tables = {name: table for name, table in values.items() if isinstance(table, dict)}
    shared = {key: value for key, value in values.items() if key not in tables}
    unknown = sorted(set(tables) - set(commands))
    if unknown:
        raise SettingError(f"{path}: no command is called {', '.join(unknown)}; there are {', '.join(commands)}")
    found = {}
    for name, names in commands.items():
        own = tables.get(name, {})
        found[name] = _named(shared, names) | _named(own, names)
        if names is not None and (wrong := [key for key in own if _option(key) not in _plain(names)]):
            raise SettingError(f"{path}: {name} has no option {', '.join(wrong)}; kshot {name} --help lists them")
    everywhere = {option for names in commands.values() if names is not None for option in _plain(names)}
    if wrong := [key for key in shared if _option(key) not in everywhere]:
        raise SettingError(f"{path}: no command has an option {', '.join(wrong)}")
    return found


def _names_a_file(values: Mapping[str, Any]) -> bool:
    """Whether a method, in any table, is a Python file."""
    method = str(values.get("method", values.get("method_file", "")))
    return method.endswith(".py") or any(_names_a_file(table) for table in values.values() if isinstance(table, dict))


def _named(values: Mapping[str, Any], names: Iterable[str] | None) -> dict[str, Any]:
    """Values by the parameters of a command, as far as it has them."""
    if names is None:
        return {_option(key): value for key, value in values.items()}
    parameters = _plain(names)
    return {parameters[_option(key)]: value for key, value in values.items() if _option(key) in parameters}


def _plain(names: Iterable[str]) -> dict[str, str]:
    """{option as it is typed, with underscores: parameter}; "class" is a word of Python, so its parameter is class_."""
    return {name.rstrip("_"): name for name in names}


def _option(key: str) -> str:
    return key.replace("-", "_")
