"""A family is a folder: its files are its members, and a file's name is the option's name.

`names` looks at file names only and `load` imports one file, so listing a family imports none of it. A file whose name
begins with an underscore is a helper of its family, and `base` says what every member is: the protocol that a caller
of `load` annotates the module with.
"""

import importlib
import pkgutil
from importlib.util import find_spec
from typing import Any

from kshot.errors import UnknownNameError


def names(family: str) -> list[str]:
    """Sorted names of the members of `family`, read from its folder without importing any of them."""
    spec = find_spec(f"kshot.{family}")
    folders = spec.submodule_search_locations if spec else None
    found = {module.name for module in pkgutil.iter_modules(folders or [])}
    return sorted(name for name in found if not name.startswith("_") and name != "base")


def option_names(family: str) -> list[str]:
    """`names` as they are typed and shown, with hyphens: "dense-comparison"."""
    return [name.replace("_", "-") for name in names(family)]


def load(family: str, name: str) -> Any:
    """The module of a member of `family`; `UnknownNameError` lists the choices when there is none."""
    module_name = name.replace("-", "_")
    if module_name not in names(family):
        raise UnknownNameError(family, name, option_names(family))
    return importlib.import_module(f"kshot.{family}.{module_name}")


def name_of(module: Any) -> str:
    """The name of a member, from its module."""
    return str(module.__name__).rpartition(".")[2]


def members(family: str) -> dict[str, Any]:
    """All modules of a family by name; imports each of them."""
    return {name: load(family, name) for name in names(family)}
