"""A family is a folder: its files are its members, and a file's name is the option's name.

`names` looks at file names only and `load` imports one file, so listing a family never pays for it.
Files that begin with an underscore, and `base`, are part of the folder, but no members.
"""

import importlib
import pkgutil
from importlib.util import find_spec
from types import ModuleType

from kshot.errors import UnknownNameError

_BASE = "base"  # what every member of a family is


def names(family: str) -> list[str]:
    """Sorted names of the members of `family`, read from its folder without importing any of them."""
    return sorted(name for name in _files(family) if name != _BASE)


def option_names(family: str) -> list[str]:
    """`names` as they are typed and shown, with hyphens: "dense-comparison"."""
    return [name.replace("_", "-") for name in names(family)]


def load(family: str, name: str) -> ModuleType:
    """The module of a member (or helper) of `family`; `UnknownNameError` lists the choices when there is none."""
    module_name = name.replace("-", "_")
    if module_name not in _files(family):
        raise UnknownNameError(family, name, option_names(family))
    return importlib.import_module(f"kshot.{family}.{module_name}")


def members(family: str) -> dict[str, ModuleType]:
    """All modules of a family by name; imports each of them."""
    return {name: load(family, name) for name in names(family)}


def _files(family: str) -> set[str]:
    spec = find_spec(f"kshot.{family}")
    folders = spec.submodule_search_locations if spec else None
    return {module.name for module in pkgutil.iter_modules(folders or []) if not module.name.startswith("_")}
