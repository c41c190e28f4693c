"""`kshot models`: which backbones there are, what is known of each, and fetching one."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from kshot.backbones.base import DEFAULT, Spec, load_backbone, specs
from kshot.cli.output import print_json
from kshot.errors import UnknownNameError
from kshot.io import hub

app = typer.Typer(help="Backbones: list them, look at one, download one.", no_args_is_help=True)
Name = Annotated[str, typer.Argument(help="Short name, Hub id or local folder.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout.")]


@app.command("list")
def list_models(json: Json = False) -> None:
    """Every backbone with a short name, and whether it is on this machine."""
    rows = [_facts(spec) for _, (_, spec) in sorted(specs().items())]
    if json:
        return print_json(rows)
    typer.echo(f"{'name':24}{'patch':>6}{'dim':>6}  {'here':6}licence")
    for row in rows:
        star = " (default)" if row["name"] == DEFAULT else ""
        licence = row["licence"].partition(" (")[0]
        typer.echo(
            f"{row['name'] + star:24}{row['patch']:>6}{row['dim']:>6}  {'yes' if row['here'] else 'no':6}{licence}"
        )
    typer.echo("Any ViT, DINOv2, DINOv3 or CLIP folder, and any Hub id of one, works as --backbone too.")
    return None


@app.command("info")
def info(name: Name, json: Json = False) -> None:
    """The facts of one backbone; one that is on this machine is loaded and fingerprinted."""
    facts = _facts(_spec(name))
    if facts["here"]:
        backbone = load_backbone(name, device="cpu")
        facts |= asdict(backbone.spec) | {"here": True, "identity": backbone.identity}
    if json:
        return print_json(facts)
    for key, value in facts.items():
        if value not in ("", ()):
            typer.echo(f"{key:10} {value}")
    return None


@app.command("pull")
def pull(name: Name, json: Json = False) -> None:
    """Download a backbone's weights into the Hub's own cache (HF_HOME)."""
    spec = _spec(name)
    folder = _pulled(name, spec.source) if "/" in spec.source else None
    where = str(folder) if folder else "comes with kshot: nothing to download"
    if json:
        return print_json({"name": name, "folder": where})
    typer.echo(f"{name}: {where}")
    return None


def _pulled(name: str, source: str) -> Path:
    """The model's folder, complete; a backbone of several parts has a `pull` of its own."""
    known = specs().get(name)
    own = getattr(known[0], "pull", None) if known else None
    if own:
        return Path(own(name))
    folder = hub.find_folder(source, name)
    # What another program put into the Hub's cache may lack the tokenizer.
    return hub.pull(source, name) if not Path(source).is_dir() and hub.hub_answers() else folder


def _spec(name: str) -> Spec:
    known = specs()
    if name in known:
        return known[name][1]
    if "/" in name or Path(name).is_dir():
        return Spec(name, 0, 0, source=name)
    raise UnknownNameError("backbones", name, known)


def _facts(spec: Spec) -> dict[str, Any]:
    in_hub = "/" in spec.source
    known = specs().get(spec.name)
    own = getattr(known[0], "is_here", None) if known else None
    here = own(spec.name) if own else not in_hub or _is_here(spec.source)
    return asdict(spec) | {"here": here}


def _is_here(source: str) -> bool:
    return Path(source).is_dir() or hub.cached_folder(source) is not None
