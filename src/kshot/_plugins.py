"""A family is a folder: its files are its members, and a file's name is the option's name.

`names` looks at file names only and `load` imports one file, so listing a family imports none of it. A file whose name
begins with an underscore is a helper of its family, and `base` says what every member is: the protocol that a caller
of `load` annotates the module with. Installed distributions may add members (`_elsewhere`); kshot's own come first.
"""

import importlib
import logging
import pkgutil
from collections.abc import Callable, Mapping
from functools import cache, partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeVar

from kshot import _elsewhere
from kshot.errors import PluginError, SettingError, UnknownNameError

log = logging.getLogger(__name__)
_Member = TypeVar("_Member")


def names(family: str) -> list[str]:
    """Sorted names of kshot's own members of `family`, read from its folder without importing any of them."""
    spec = find_spec(f"kshot.{family}")
    folders = spec.submodule_search_locations if spec else None
    found = {module.name for module in pkgutil.iter_modules(folders or [])}
    return sorted(name for name in found if not name.startswith("_") and name != "base")


def option_names(family: str) -> list[str]:
    """`names` as they are typed and shown, with hyphens: "dense-comparison"."""
    return [name.replace("_", "-") for name in names(family)]


def choices(family: str) -> list[str]:
    """All names that can be chosen, as they are typed: `option_names` and those of installed distributions."""
    return sorted({*option_names(family), *_elsewhere.installed(family)})


def load(family: str, name: str) -> Any:
    """The module of a member of `family`. Raises `UnknownNameError`, which lists the choices, and `PluginError`."""
    typed, module_name = name.replace("_", "-"), name.replace("-", "_")
    added = _elsewhere.installed(family).get(typed)
    if module_name in names(family):
        if added:
            warn(str(added.clash()))
        return importlib.import_module(f"kshot.{family}.{module_name}")
    if not added:
        raise UnknownNameError(family, name, choices(family))
    return added.load()


def load_file(family: str, path: Path) -> Any:
    """The module of a Python file as a member of `family`; runs its code, so a person has to have named the file.

    Raises `SettingError` when it cannot be read or has the name of one of kshot's own, and `PluginError`.
    """
    if path.stem.replace("-", "_") in names(family):
        raise SettingError(f"{path}: kshot has a {family.rstrip('s')} called {path.stem}; rename the file")
    return _elsewhere.load_file(path)


def name_of(module: Any) -> str:
    """The name of a member, from its module."""
    source = _elsewhere.source_of(module)
    return source.name if source else module.__name__.rpartition(".")[2]


def members(family: str, load_one: Callable[[str], Any] | None = None) -> dict[str, Any]:
    """All members of a family by name, as `load_one` (by default `load`) has them; imports each of them."""
    load_one = load_one or partial(load, family)
    return with_installed(family, {name: load_one(name) for name in names(family)}, load_one)


def with_installed(family: str, own: Mapping[str, _Member], load_one: Callable[[str], _Member]) -> dict[str, _Member]:
    """`own`, then what installed distributions add; what cannot be used of that is left out with a warning."""
    found = dict(own)
    for added in _elsewhere.installed(family).values():
        try:
            found[added.name] = use(added, load_one)
        except PluginError as error:
            warn(str(error))
    return found


def use(added: _elsewhere.Installed, load_one: Callable[[str], _Member]) -> _Member:
    """What a distribution adds, as `load_one` has it. Raises `PluginError`, also where kshot has one of this name."""
    if added.name.replace("_", "-") in option_names(added.family):
        raise added.clash()
    return load_one(added.name)


@cache
def warn(text: str) -> None:
    """Log a warning, once."""
    log.warning(text)
