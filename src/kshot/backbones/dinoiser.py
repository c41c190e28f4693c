"""CLIP-DINOiser (Wysoczańska et al., ECCV 2024): MaskCLIP's features, pooled over what belongs together.

Two small heads on the third block from the end give affinities and objectness, learned from DINO and FOUND; the joint
space with texts stays CLIP's own. The heads are the authors' (7 MB, downloaded and checked against their hash), or lie
as `last.pt` beside the files of a whole CLIP model.
"""

import urllib.error
import urllib.request
from dataclasses import replace
from pathlib import Path

import torch

from kshot.backbones import clip
from kshot.backbones.base import refuse_layers
from kshot.backbones.headed import CHECKPOINT, Headed, check_depth, git_blob_hash, read_checkpoint, with_heads
from kshot.errors import BackboneError, WeightsNotFoundError
from kshot.io import hub
from kshot.io.atomic import atomic_path

URL = "https://raw.githubusercontent.com/wysoczanska/clip_dinoiser/main/checkpoints/last.pt"
BLOB = "0b6c94d9c439ebac7bcb07fe805be3654ea03c7f"  # git's name of that file
_SECONDS = 60

SPECS = {
    "clip-dinoiser": replace(
        clip.SPECS["clip-vit-b16-laion2b"],
        name="clip-dinoiser",
        licence="MIT (CLIP), Apache-2.0 (heads)",
        note="CLIP with guided pooling and objectness, and a text encoder",
    ),
}


def reads(folder: Path) -> bool:
    """Whether a folder holds a whole CLIP model with heads beside it."""
    return clip.is_whole(folder) and (folder / CHECKPOINT).is_file()


def load(name: str, device: torch.device, dtype: torch.dtype, layers: tuple[str, ...] | None) -> Headed:
    """The short name, or a folder with a whole CLIP model and `last.pt`; see `load_backbone` for the errors."""
    refuse_layers(name, layers)
    known = SPECS.get(name)
    model = clip.load_clip(known.source if known else name, name, known, device, dtype)
    check_depth(name, model.depth)
    path = fetch_heads(name) if known else model.folder / CHECKPOINT
    return with_heads(model, read_checkpoint(path, model.width), model.spec, load)


def pull(name: str) -> Path:
    """Download CLIP and the heads; the folder of CLIP."""
    folder = hub.find_folder(SPECS[name].source, name)
    fetch_heads(name)
    return folder


def is_here(name: str) -> bool:
    """Whether both CLIP and the heads are on this machine."""
    return heads_path().is_file() and hub.cached_folder(SPECS[name].source) is not None


def heads_path() -> Path:
    """Where the downloaded heads lie: beside the Hub's own cache."""
    from huggingface_hub import constants

    return Path(constants.HF_HOME) / "kshot" / f"clip-dinoiser-{BLOB[:12]}.pt"


def fetch_heads(name: str) -> Path:
    """The authors' heads, downloaded when they are not here; both ways their hash must be right.

    Raises `WeightsNotFoundError` when they cannot be had and `BackboneError` when they are not what they should be.
    """
    path = heads_path()
    if path.is_file():
        _check(path.read_bytes(), str(path), f"delete it and run `kshot models pull {name}`")
        return path
    if not hub.hub_answers():
        raise WeightsNotFoundError(_not_here(name, path, "there is no network"))
    try:
        with urllib.request.urlopen(URL, timeout=_SECONDS) as answer:
            data: bytes = answer.read()
    except (urllib.error.URLError, OSError) as error:
        raise WeightsNotFoundError(_not_here(name, path, str(error))) from error
    _check(data, URL, "the file was changed on its way or by its authors, and is not used")
    with atomic_path(path) as beside:
        beside.write_bytes(data)
    return path


def _check(data: bytes, where: str, way_out: str) -> None:
    found = git_blob_hash(data)
    if found != BLOB:
        raise BackboneError(f"{where}: git blob {found}, expected {BLOB}; {way_out}")


def _not_here(name: str, path: Path, reason: str) -> str:
    return (
        f"{name}: no heads at {path}, and {reason}. Run `kshot models pull {name}` where there is a network, or put "
        f"{URL} there; or put it as {CHECKPOINT} beside the files of a CLIP model and give that folder"
    )
