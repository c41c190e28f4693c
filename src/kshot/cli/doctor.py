"""`kshot doctor`: what this machine has, and what would go wrong."""

import importlib.util
import os
import platform
from collections.abc import Iterator
from dataclasses import asdict, dataclass

import typer

from kshot import _plugins
from kshot._elsewhere import installed
from kshot._version import __version__
from kshot.cli import options as o
from kshot.cli.output import answer
from kshot.errors import PluginError

_PACKAGES = (
    *("torch", "transformers", "safetensors", "huggingface_hub"),
    *("numpy", "pillow", "scikit-image", "pycocotools"),
)


@dataclass(frozen=True)
class Finding:
    """One line of the report. state: ok, note or problem."""

    what: str
    state: str
    text: str


def doctor(json: o.JsonAlone = False) -> None:
    """Check this installation; exit code 1 when something would not work."""
    findings = [*_versions(), _torch(), _torchvision(), _backbone(), *_installed(), _hub()]
    lines = [f"{finding.state:8} {finding.what:16} {finding.text}" for finding in findings]
    answer(json, [asdict(finding) for finding in findings], *lines)
    if any(finding.state == "problem" for finding in findings):
        raise typer.Exit(1)


def _versions() -> Iterator[Finding]:
    from importlib import metadata

    yield Finding("kshot", "ok", __version__)
    yield Finding("python", "ok", f"{platform.python_version()} on {platform.system()} {platform.machine()}")
    for name in _PACKAGES:
        try:
            yield Finding(name, "ok", metadata.version(name))
        except metadata.PackageNotFoundError:
            yield Finding(name, "problem", f"not installed: pip install {name}")


def _torch() -> Finding:
    import torch

    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return Finding("device", "ok", ", ".join(gpus) or f"CPU, {torch.get_num_threads()} threads; no CUDA GPU")


def _torchvision() -> Finding:
    """transformers imports torchvision when it finds it, so one built for another torch breaks it."""
    from importlib import metadata

    if importlib.util.find_spec("torchvision") is None:
        return Finding("torchvision", "ok", "not installed; kshot never needs it")
    try:
        import torchvision  # noqa: F401
    except Exception as error:  # a broken binary raises whatever its loader feels like
        text = f"installed, but does not load ({error}): it breaks transformers; pip uninstall torchvision"
        return Finding("torchvision", "problem", text)
    return Finding("torchvision", "note", f"{metadata.version('torchvision')} loads; kshot does not use it")


def _backbone() -> Finding:
    from kshot.backbones.base import DEFAULT, load_backbone
    from kshot.errors import KshotError
    from kshot.features import accelerate, precision_of

    try:
        backbone = accelerate(load_backbone(DEFAULT, device="cpu"))
    except KshotError as error:
        return Finding("backbone", "problem", str(error))
    text = f"{backbone.spec.name} (default) loads, {backbone.spec.patch} px patches, computed by "
    return Finding("backbone", "ok", text + precision_of(backbone))


def _installed() -> Iterator[Finding]:
    """What installed distributions add."""
    from kshot.backbones.base import installed_backbone
    from kshot.formats.base import load_format
    from kshot.methods.base import method_named

    for family, load in (("backbones", installed_backbone), ("formats", load_format), ("methods", method_named)):
        for added in installed(family).values():
            state, told = "ok", f"{added.name} of {added.distribution} {added.version}"
            try:
                _plugins.use(added, load)
            except PluginError as error:
                state, told = "problem", str(error)
            yield Finding(family.rstrip("s"), state, told)


def _hub() -> Finding:
    from huggingface_hub import constants

    from kshot.io.hub import hub_answers

    cache = f"cache: {constants.HF_HUB_CACHE}"
    if constants.HF_HUB_OFFLINE:
        return Finding("Hub", "note", f"switched off by HF_HUB_OFFLINE; {cache}")
    if hub_answers():
        token = "with a token" if os.environ.get("HF_TOKEN") else "without a token"
        return Finding("Hub", "ok", f"reachable, {token}; {cache}")
    return Finding("Hub", "note", f"not reachable: only local models work; {cache}")
