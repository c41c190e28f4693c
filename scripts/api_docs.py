#!/usr/bin/env python3
"""Write docs/api.md from the docstrings and signatures of the public names; `--check` fails when it is not up to date.

Source files are parsed and never imported, so the page is the same on every machine.
"""

import ast
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SRC, PAGE = ROOT / "src", ROOT / "docs" / "api.md"

# A module stands for the names in its `__all__`, or for all public names that it defines; another name for itself.
SECTIONS = {
    "Segmenting": ["kshot", "kshot.objects"],
    "Images": ["kshot.io.images.read_image", "kshot.io.images.read_mask"],
    "Folders of images": ["kshot.batch.label_folder", "kshot.batch.Summary", "kshot.batch.object_table.ObjectTable"],
    "Evaluation": ["kshot.evaluation", "kshot.data.base.Dataset", "kshot.episodes.sampler", "kshot.episodes.csv"],
    "Training": ["kshot.training", "kshot.training.schedule", "kshot.training.episodic_recipes.Recipe"],
    "Errors": ["kshot.errors"],
    "Annotations": ["kshot.annotations.model", "kshot.formats.base"],
    "Parts of a backbone": ["kshot.backbones.base"],
    "Parts of a refiner": ["kshot.refiners.base"],
    "Parts of a method": ["kshot.ops.geometry", "kshot.methods.base"],
}
FAMILIES = {"Settings of methods": "methods", "Settings of refiners": "refiners"}
HEAD = """# API

Written by `scripts/api_docs.py` from signatures and docstrings; do not edit it by hand. The [tour](tour.md) shows the
names under "Segmenting" at work.
"""

Definition = ast.ClassDef | ast.FunctionDef


def main() -> None:
    page = build()
    if "--check" not in sys.argv[1:]:
        PAGE.write_text(page, encoding="utf-8")
    elif PAGE.read_text(encoding="utf-8") != page:
        sys.exit("docs/api.md is not up to date: run scripts/api_docs.py")


def build() -> str:
    parts, shown = [HEAD], set()
    for title, names in SECTIONS.items():
        parts.append(f"## {title}\n")
        for name in names:
            for module, node in public(name):
                if node not in shown:
                    shown.add(node)
                    parts += [f"### `{module}.{node.name}`\n", *described(node)]
    for title, family in FAMILIES.items():
        parts.append(f"## {title}\n")
        folder = SRC / "kshot" / family
        for path in sorted(folder.rglob("*.py")):
            for node in parsed(path).body:
                if isinstance(node, ast.ClassDef) and node.name == "Settings":
                    member = path.relative_to(folder).parts[0].removesuffix(".py").replace("_", "-")
                    parts += [f"### `{member}`\n", *docstring(node), *fields(node)]
    return "\n".join(parts).rstrip() + "\n"


def public(name: str) -> Iterator[tuple[str, Definition]]:
    """The definitions that a dotted name stands for, each with the module that users import it from."""
    path = source(name)
    if path is None:
        module, _, wanted = name.rpartition(".")
        node = find(module, wanted)
        if node is None:
            sys.exit(f"scripts/api_docs.py: {module} has no {wanted}; correct SECTIONS")
        yield module, node
        return
    body = parsed(path).body
    listed = [n.value for n in body if ast.unparse(n).startswith("__all__ ")]  # = and +=
    own = [n.name for n in body if isinstance(n, Definition) and not n.name.startswith("_")]
    for wanted in [name for names in listed for name in ast.literal_eval(names)] or own:
        node = find(name, wanted)
        if node is not None:
            yield name, node


def find(module: str, wanted: str) -> Definition | None:
    """The class or function of this name in a module, or where the module imports it from."""
    path = source(module)
    for node in ast.walk(parsed(path)) if path else ():
        if isinstance(node, Definition) and node.name == wanted:
            return node
        if isinstance(node, ast.ImportFrom) and node.module and node.module != module:
            for alias in node.names:
                if (alias.asname or alias.name) == wanted:
                    return find(node.module, alias.name)
    return None


def described(node: Definition) -> Iterator[str]:
    """Markdown of a function, or of a class with its fields, properties and public methods."""
    yield signature(node)
    yield from docstring(node)
    if isinstance(node, ast.ClassDef):
        yield from fields(node)
        for method in methods(node):
            if not is_property(method):
                yield f"#### `{node.name}.{method.name}`\n"
                yield signature(method)
                yield from docstring(method)


def signature(node: Definition) -> str:
    """A fenced signature; of a class that of its `__init__`, where it writes one."""
    if isinstance(node, ast.ClassDef):
        made = next((n for n in node.body if isinstance(n, ast.FunctionDef) and n.name == "__init__"), None)
        inside = arguments(made) if made else ", ".join(map(ast.unparse, node.bases))
        return fenced(f"class {node.name}" + (f"({inside})" if inside else ""))
    lines = [f"@{d}" for d in map(ast.unparse, node.decorator_list) if d in {"classmethod", "staticmethod"}]
    returns = f" -> {kind(node.returns)}" if node.returns else ""
    return fenced("\n".join([*lines, f"def {node.name}({arguments(node)}){returns}"]))


def fenced(code: str) -> str:
    return f"```py\n{code}\n```\n"


def arguments(node: ast.FunctionDef) -> str:
    """The arguments but `self`: on one line where they fit, else one a line."""
    given = node.args
    positional = [*given.posonlyargs, *given.args]
    defaults = [None] * (len(positional) - len(given.defaults)) + given.defaults
    told = [argument(*pair) for pair in zip(positional, defaults, strict=True) if pair[0].arg not in {"self", "cls"}]
    if given.vararg or given.kwonlyargs:
        told.append(f"*{argument(given.vararg) if given.vararg else ''}")
    told += [argument(*pair) for pair in zip(given.kwonlyargs, given.kw_defaults, strict=True)]
    if given.kwarg:
        told.append(f"**{argument(given.kwarg)}")
    line = ", ".join(told)
    return line if len(line) < 80 else "".join(f"\n    {one}," for one in told) + "\n"


def argument(arg: ast.arg, default: ast.expr | None = None) -> str:
    told = f"{arg.arg}: {kind(arg.annotation)}" if arg.annotation else arg.arg
    return f"{told} = {ast.unparse(default)}" if default else told


def fields(node: ast.ClassDef) -> Iterator[str]:
    """A list of public fields, each with type, default and the string below it, and of properties."""
    lines = []
    for field, below in zip(node.body, [*node.body[1:], None], strict=True):
        if isinstance(field, ast.AnnAssign) and not ast.unparse(field.target).startswith("_"):
            default = ast.unparse(field.value) if field.value else ""
            default = f" = {default}" if default and not default.startswith("field(") else ""
            says = ast.literal_eval(below.value) if isinstance(below, ast.Expr) else ""
            lines.append(item(f"{ast.unparse(field.target)}: {kind(field.annotation)}{default}", says))
    for method in methods(node):
        if is_property(method):
            told = f"{method.name}: {kind(method.returns)}" if method.returns else method.name
            lines.append(item(f"{told}` (property)`", ast.get_docstring(method) or "").replace("``", ""))
    if lines:
        yield "\n".join(lines) + "\n"


def item(code: str, says: str) -> str:
    return f"- `{code}`" + (f": {' '.join(says.split())}" if says else "")


def methods(node: ast.ClassDef) -> list[ast.FunctionDef]:
    return [n for n in node.body if isinstance(n, ast.FunctionDef) and not n.name.startswith("_")]


def is_property(node: ast.FunctionDef) -> bool:
    return any("property" in ast.unparse(d) for d in node.decorator_list)


def kind(annotation: ast.expr) -> str:
    quoted = isinstance(annotation, ast.Constant) and isinstance(annotation.value, str)
    return annotation.value if quoted else ast.unparse(annotation).replace("'", "")


def docstring(node: Definition) -> Iterator[str]:
    """The docstring; the indented block after `::` is one in Markdown too."""
    says = ast.get_docstring(node, clean=False)
    if says:
        indent = " " * node.body[0].col_offset
        yield says.replace(f"\n{indent}", "\n").replace("::\n", ":\n").strip() + "\n"


def source(module: str) -> Path | None:
    path = SRC.joinpath(*module.split("."))
    return next((p for p in (path.with_suffix(".py"), path / "__init__.py") if p.is_file()), None)


@cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
