"""Whole files that documentation pages list: fenced blocks whose first line is "# path/of/the/file"."""

import re
import sys
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from kshot import _elsewhere, _plugins
from kshot.formats.base import all_formats

ROOT = Path(__file__).resolve().parents[2]
ADDING = ROOT / "docs" / "adding.md"


def listings(page: Path) -> dict[str, str]:
    """{path: text} of a page."""
    blocks = re.findall(r"^```\w+\n# ([\w/.]+\.\w+)\n(.*?)^```", page.read_text(encoding="utf-8"), re.M | re.S)
    return {path: text.rstrip() + "\n" for path, text in blocks}


def example_distribution() -> dict[str, str]:
    """The files of the distribution that docs/adding.md lists."""
    files = listings(ADDING)
    nearest = files.pop("mine.py").replace('method = "mine"', 'method = "nearest"')
    return files | {"kshot_example/__init__.py": "", "kshot_example/nearest.py": nearest}


@contextmanager
def installed(site: Path, files: Mapping[str, str]) -> Iterator[None]:
    """A distribution of these files, pyproject.toml among them, as an installer leaves it; `site` is on the path."""
    install(site, files)
    before = set(sys.modules)
    sys.path.insert(0, str(site))
    _forget()
    try:
        yield
    finally:
        sys.path.remove(str(site))
        for name in set(sys.modules) - before:
            if str(site) in str(getattr(sys.modules[name], "__file__", "")):
                del sys.modules[name]
        _forget()


def install(site: Path, files: Mapping[str, str]) -> None:
    """Write modules, and the dist-info folder that pip makes of pyproject.toml."""
    about = tomllib.loads(files["pyproject.toml"])["project"]
    for path, text in files.items():
        if path.endswith(".py"):
            (site / path).parent.mkdir(parents=True, exist_ok=True)
            (site / path).write_text(text, encoding="utf-8")
    info = site / f"{about['name'].replace('-', '_')}-{about['version']}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {about['name']}\nVersion: {about['version']}\n")
    lines = []
    for group, points in about.get("entry-points", {}).items():
        lines += [f"[{group}]", *(f"{name} = {value}" for name, value in points.items())]
    (info / "entry_points.txt").write_text("\n".join(lines) + "\n")


def _forget() -> None:
    """What was read of installed distributions, and of which it was warned."""
    for cached in (_elsewhere.installed, all_formats, _plugins.warn):
        cached.cache_clear()
