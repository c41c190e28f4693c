"""`kshot models`: which backbones there are, what is known of each, and fetching one."""

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from kshot.cli import options as o
from kshot.cli.output import answer

if TYPE_CHECKING:
    from kshot.backbones.base import Spec

app = typer.Typer(help="Backbones: list them, look at one, download one.", no_args_is_help=True)
Name = Annotated[str, typer.Argument(help="Short name, Hub id or local folder.")]


@app.command("list")
def list_models(json: o.JsonAlone = False) -> None:
    """Every backbone with a short name, and whether it is on this machine."""
    from kshot.backbones.base import DEFAULT, specs

    rows = [_facts(spec) for _, (_, spec) in sorted(specs().items())]
    lines = [f"{'name':24}{'patch':>6}{'dim':>6}  {'here':6}licence"]
    for row in rows:
        name = row["name"] + (" (default)" if row["name"] == DEFAULT else "")
        licence = row["licence"].partition(" (")[0]
        lines.append(f"{name:24}{row['patch']:>6}{row['dim']:>6}  {'yes' if row['here'] else 'no':6}{licence}")
    lines.append("Any ViT, DINOv2, DINOv3 or CLIP folder, and any Hub id of one, works as --backbone too.")
    answer(json, rows, *lines)


@app.command("info")
def info(name: Name, json: o.JsonAlone = False) -> None:
    """The facts of one backbone; one that is on this machine is loaded and fingerprinted."""
    from kshot.backbones.base import load_backbone, spec_of

    facts = _facts(spec_of(name))
    if facts["here"]:
        backbone = load_backbone(name, device="cpu")
        facts |= asdict(backbone.spec) | {"here": True, "identity": backbone.identity}
    answer(json, facts, *(f"{key:10} {value}" for key, value in facts.items() if value not in ("", ())))


@app.command("pull")
def pull(name: Name, json: o.JsonAlone = False) -> None:
    """Download a backbone's weights into the Hub's own cache (HF_HOME)."""
    from kshot.backbones import base

    folder = base.pull(name)
    where = str(folder) if folder else "comes with kshot: nothing to download"
    answer(json, {"name": name, "folder": where}, f"{name}: {where}")


def _facts(spec: "Spec") -> dict[str, Any]:
    from kshot.backbones.base import is_here

    return asdict(spec) | {"here": is_here(spec)}
