"""Groups of commands that import a command's module when the command is asked for: help has to be there at once."""

from collections.abc import Iterator, Mapping
from importlib import import_module
from typing import Any, ClassVar

import typer
from typer.core import TyperGroup


class LazyGroup(TyperGroup):
    """A group whose commands are listed by `places`."""

    places: ClassVar[Mapping[str, str]]
    """{command: "module.function" or "module.app" below kshot.cli}; a function's examples stand in the module's
    FUNCTION_EXAMPLES."""

    def __init__(self, **settings: Any):
        super().__init__(**settings)
        self.commands: Any = _Commands(self.places)

    def get_params(self, ctx: Any) -> list[Any]:
        """The group's options, which are flags. None as default would cost an import of pydantic, which checks it."""
        found: list[Any] = super().get_params(ctx)
        for flag in found:
            flag.default = flag.default or False
        return found


class _Commands(Mapping[str, Any]):
    """Click's commands by name."""

    def __init__(self, places: Mapping[str, str]):
        self.places, self.loaded = places, dict[str, Any]()

    def __getitem__(self, name: str) -> Any:
        if name not in self.loaded:
            self.loaded[name] = _command(name, self.places[name])
        return self.loaded[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.places)

    def __len__(self) -> int:
        return len(self.places)


def _command(name: str, place: str) -> Any:
    module_name, _, attribute = place.partition(".")
    module = import_module(f"kshot.cli.{module_name}")
    found = getattr(module, attribute)
    if isinstance(found, typer.Typer):
        made: Any = typer.main.get_group(found)
    else:
        app = typer.Typer(add_completion=False)
        app.command(name, epilog=getattr(module, f"{attribute.upper()}_EXAMPLES", None))(found)
        made = typer.main.get_command(app)
    made.name = name
    return made
