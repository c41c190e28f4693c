"""Members of a family that are not kshot's own: of installed distributions, and Python files of the user's.

A distribution adds a member through an entry point of the group `kshot.methods`, `kshot.backbones` or `kshot.formats`.
The entry point's name is the option's name, its value the module. Nothing is imported before it is asked for, and a
file's code runs only where somebody names that file.
"""

import importlib
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.machinery import ModuleSpec, SourceFileLoader
from importlib.util import module_from_spec
from pathlib import Path
from traceback import extract_tb
from types import CodeType, ModuleType
from typing import Any

from kshot.errors import PluginError, SettingError

FAMILIES = ("methods", "backbones", "formats")
"""Those that installed distributions can add to."""


@dataclass(frozen=True)
class Source:
    """Where a module comes from."""

    name: str
    """The option's name."""
    facts: Mapping[str, str]
    """distribution and version, or file (its name) and sha256: for manifests and task files."""
    path: Path | None = None
    """Of the file."""

    @property
    def reference(self) -> str:
        """What loads the module again: the option's name, or the path of the file."""
        return str(self.path or self.name)

    def __str__(self) -> str:
        return str(self.path or " ".join(self.facts.values()))


@dataclass(frozen=True)
class Installed:
    """An entry point."""

    family: str
    name: str
    """As it is typed."""
    module: str
    distribution: str
    version: str
    others: tuple[str, ...] = ()
    """Other distributions with an entry point of this name, so that none of them can be chosen."""

    def wrong(self, problem: object) -> PluginError:
        """The error that says what is wrong with it."""
        return PluginError(
            f"the {self.family.rstrip('s')} {self.name!r} of {self.distribution} {self.version}: {problem}; update it, "
            f"or remove it (pip uninstall {self.distribution})"
        )

    def clash(self) -> PluginError:
        """The error where kshot has a member of this name."""
        return self.wrong("kshot has one of this name, and takes that")

    def load(self) -> ModuleType:
        """Its module. Raises `PluginError`."""
        if self.others:
            raise self.wrong(f"one of this name is in {', '.join(self.others)} too")
        try:
            module = importlib.import_module(self.module)
        except (Exception, SystemExit) as error:  # other people's code fails as it likes
            raise self.wrong(f"cannot be imported ({type(error).__name__}: {error})") from error
        _sources[module.__name__] = Source(self.name, {"distribution": self.distribution, "version": self.version})
        return module


_sources: dict[str, Source] = {}


def source_of(module: Any) -> Source | None:
    """Where a module comes from that was loaded here; None for kshot's own."""
    return _sources.get(module.__name__)


@cache
def installed(family: str) -> Mapping[str, Installed]:
    """What installed distributions add to a family, by name with hyphens. Reads metadata, and imports nothing."""
    if family not in FAMILIES:
        return {}
    from importlib import metadata  # help does without

    found: dict[str, Installed] = {}
    for point in metadata.entry_points(group=f"kshot.{family}"):
        key = point.name.replace("_", "-")
        of, version = (point.dist.name, point.dist.version) if point.dist else ("an unknown distribution", "")
        others = (*found[key].others, found[key].distribution) if key in found else ()
        found[key] = Installed(family, point.name, point.value, of, version, others)
    return dict(sorted(found.items()))


class _BytesLoader(SourceFileLoader):
    """Makes a module of the bytes that were hashed, and leaves no compiled file beside the user's."""

    def __init__(self, name: str, path: Path, data: bytes):
        super().__init__(name, str(path))
        self.data = data

    def get_code(self, fullname: str) -> CodeType:
        """Compiled from the bytes."""
        return self.source_to_code(self.data, self.path)


def load_file(path: Path) -> ModuleType:
    """The module of a Python file; the same content runs once. Raises `SettingError` and `PluginError`."""
    try:
        data = path.expanduser().read_bytes()
    except OSError as error:
        raise SettingError(f"{path}: cannot be read ({error.strerror or error}); check the path") from error
    import hashlib  # help does without

    path = path.expanduser().absolute()
    sha256 = hashlib.sha256(data).hexdigest()
    name = f"{path.stem}_{sha256[:16]}"
    if name not in _sources:
        loader = _BytesLoader(name, path, data)
        spec = ModuleSpec(name, loader, origin=str(path))
        spec.has_location = True  # so that the module has a __file__
        module = module_from_spec(spec)
        sys.modules[name] = module  # dataclasses look their module up
        try:
            loader.exec_module(module)
        except (Exception, SystemExit) as error:
            del sys.modules[name]
            lines = [frame.lineno for frame in extract_tb(error.__traceback__) if frame.filename == str(path)]
            line = f"; line {lines[-1]}" if lines else ""
            raise PluginError(f"{path}: cannot be run ({type(error).__name__}: {error}{line}); correct it") from error
    _sources[name] = Source(path.stem, {"file": path.name, "sha256": sha256}, path)
    return sys.modules[name]


def loaded_file(facts: Mapping[str, str]) -> ModuleType | None:
    """The module of a file that was loaded here already, by the facts of its `Source`."""
    return next((sys.modules[name] for name, source in _sources.items() if source.facts == facts), None)
