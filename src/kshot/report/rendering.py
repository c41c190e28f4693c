"""From a template and its values to a page: everything is escaped, and the page needs nothing beside it."""

import json
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from kshot._version import __version__
from kshot.errors import SettingError
from kshot.formats.overlay import colour_of

REPORT = "report.html"
_GENERATOR = b'<meta name="generator" content="kshot">'  # of every page, see macros.html.j2


def render(template: str, context: dict[str, Any]) -> str:
    """A page of the package's templates, everything escaped."""
    environment = Environment(
        loader=PackageLoader("kshot", "report/templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"percent": percent, "number": "{:,}".format}
    page = environment.get_template(template).render(version=__version__, **context)
    # File names that are no Unicode come through Python as lone surrogates, which no file can hold.
    return page.encode("utf-8", "replace").decode("utf-8")


def check_page(path: Path, *, overwrite: bool = False) -> None:
    """Refuse to replace a file that is no page of kshot. Raises `SettingError`."""
    if path.is_dir():
        raise SettingError(f"{path}: a folder; name the page itself, such as {path / 'page.html'}")
    if path.is_file() and path.stat().st_size and not overwrite:
        with path.open("rb") as file:
            if _GENERATOR not in file.read(1000):
                raise SettingError(
                    f"{path}: a file that kshot did not make; choose another name, or replace it (--overwrite)"
                )


def script_json(value: Any) -> Markup:
    """JSON that may stand in a script element: nothing in it can end the element."""
    text = json.dumps(value, separators=(",", ":"))
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Markup(text)  # ASCII without markup, see above


def percent(fraction: float | None) -> str:
    """A fraction for people: 0.042 is 4.2%; nothing is a dash."""
    if fraction is None:
        return "–"
    return f"{100 * fraction:.1f}%" if 0 < fraction < 0.0995 else f"{100 * fraction:.0f}%"


def hex_colour(label: int) -> str:
    """The colour of a label in overlays, for CSS."""
    return "#{:02x}{:02x}{:02x}".format(*colour_of(label))
