"""Find a model's folder (local, the Hub's own cache, or the Hub when it answers) and load what is in it."""

import copy
import json
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from kshot.errors import BackboneError, OutputError, WeightsNotFoundError
from kshot.io.atomic import write_text

TOKENIZER = ("tokenizer.json", "tokenizer_config.json", "vocab.json", "merges.txt")
PATTERNS = ("config.json", "preprocessor_config.json", *TOKENIZER, "*.safetensors", "*.safetensors.index.json")
INSTEAD = "backbone tiny (--backbone tiny)"
# The same weights once more, for another library.
_IGNORED = ["open_clip*"]
# What some older models have alone; transformers reads it without unpickling anything but tensors.
_OLD = "pytorch_model.bin"
_PROBE_SECONDS = 0.8


def find_folder(source: str, name: str, *, download: bool = True, instead: str = INSTEAD) -> Path:
    """The folder that holds `source` (a folder, or a Hub id), downloading it when that is allowed and possible.

    instead: the options that do without, for the message.

    Raises `WeightsNotFoundError` within a second when it is not here and the Hub does not answer.
    """
    if Path(source).is_dir():
        return Path(source)
    if source.count("/") > 1 or source[0] in "/.~":
        raise WeightsNotFoundError(f"{name}: no such folder; check the path, or give a Hub id (owner/name)")
    cached = cached_folder(source)
    if cached is not None:
        return cached
    if not download or not hub_answers():
        raise WeightsNotFoundError(_not_found(source, name, instead))
    return pull(source, name, instead)


def cached_folder(source: str) -> Path | None:
    """Where the Hub's cache holds a whole copy of `source`, or None."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        folder = Path(snapshot_download(source, allow_patterns=list(PATTERNS), local_files_only=True))
    except (LocalEntryNotFoundError, HfHubHTTPError, HFValidationError):
        return None
    return folder if (folder / "config.json").is_file() and _has_weights(folder) else None


def pull(source: str, name: str, instead: str = INSTEAD) -> Path:
    """Download the weights of a Hub id into the Hub's own cache."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        HFValidationError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
    )

    try:
        folder = Path(snapshot_download(source, allow_patterns=list(PATTERNS), ignore_patterns=_IGNORED))
        if _has_weights(folder):
            return folder
        return Path(snapshot_download(source, allow_patterns=[*PATTERNS, _OLD], ignore_patterns=_IGNORED))
    except GatedRepoError as error:
        raise WeightsNotFoundError(
            f"{name}: the Hub asks you to accept the licence of {source}; do so on its page, "
            "then set HF_TOKEN to a token of yours"
        ) from error
    except (RepositoryNotFoundError, HFValidationError) as error:
        raise WeightsNotFoundError(
            f"{name}: the Hub knows no model {source!r} (or it is private: set HF_TOKEN); check the spelling"
        ) from error
    except (LocalEntryNotFoundError, HfHubHTTPError, OSError) as error:
        raise WeightsNotFoundError(_not_found(source, name, instead)) from error


def read_config(folder: Path) -> dict[str, Any]:
    """The model's config.json; raises `BackboneError` when it is missing, damaged, or no object."""
    try:
        config: dict[str, Any] = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        if not isinstance(config, dict):
            raise ValueError("expected an object")
    except FileNotFoundError as error:
        raise BackboneError(f"{folder}: no config.json in it; give a folder that transformers can load") from error
    except (ValueError, RecursionError, OSError) as error:
        raise BackboneError(f"{folder / 'config.json'}: not JSON ({error}); download the model again") from error
    return config


def image_mean_std(folder: Path) -> tuple[Any, Any]:
    """Mean and standard deviation that images are normalised with, from preprocessor_config.json; None each without."""
    path = folder / "preprocessor_config.json"
    facts = json.loads(path.read_text()) if path.is_file() else {}
    mean, std = (tuple(facts[key]) if key in facts else None for key in ("image_mean", "image_std"))
    return mean, std


def load_model(folder: Path, loader: str, attend: Callable[..., Any] | None = None, **arguments: Any) -> Any:
    """A transformers model of class `loader`, float32; raises `BackboneError`, also when weights are missing in it.

    attend: what its blocks use for attention, as transformers' `AttentionInterface` takes it; by default its own.
    """
    import transformers
    from transformers.utils import logging as transformers_logging

    # Its progress bar and its table of missing tensors say nothing that a user of kshot needs.
    shown, level = transformers_logging.is_progress_bar_enabled(), transformers_logging.get_verbosity()
    transformers_logging.disable_progress_bar()
    transformers_logging.set_verbosity_error()
    if attend is not None:
        arguments["attn_implementation"] = f"kshot_{attend.__name__}"
        transformers.AttentionInterface.register(arguments["attn_implementation"], attend)
    safe = any(folder.glob("*.safetensors")) or not (folder / _OLD).is_file()
    try:
        model, info = getattr(transformers, loader).from_pretrained(
            folder, dtype=torch.float32, use_safetensors=safe, output_loading_info=True, **arguments
        )
    except (OSError, ValueError, RuntimeError) as error:
        raise BackboneError(f"{folder}: {error}") from error
    finally:
        transformers_logging.set_verbosity(level)
        if shown:
            transformers_logging.enable_progress_bar()
    missing = sorted(info["missing_keys"])
    if missing:  # transformers would fill them with chance
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise BackboneError(f"{folder}: a {loader} without weights for {missing[0]}{more}; download the model again")
    return model


def save_model(model: Any, folder: Path, mean: Sequence[float], std: Sequence[float], facts: Mapping[str, Any]) -> Path:
    """Write a transformers model as float16 with what `load_model` and `image_mean_std` read, and facts in kshot.json.

    Raises `OutputError`.
    """
    try:
        copy.deepcopy(model).half().save_pretrained(folder)
    except OSError as error:
        raise OutputError(f"{folder}: cannot be written ({error.strerror or error}); choose another folder") from error
    write_text(folder / "preprocessor_config.json", json.dumps({"image_mean": list(mean), "image_std": list(std)}))
    write_text(folder / "kshot.json", json.dumps(dict(facts), indent=2) + "\n")
    return folder


def hub_answers() -> bool:
    """Whether the Hub can be reached, known within a second even where packets vanish."""
    from huggingface_hub import constants, get_session

    if constants.HF_HUB_OFFLINE:
        return False
    done, reached = threading.Event(), []

    def knock() -> None:
        try:
            get_session().head(constants.ENDPOINT, timeout=_PROBE_SECONDS)
            reached.append(True)
        except Exception:  # whatever stops the request, the answer is the same: not reachable
            reached.clear()
        finally:
            done.set()

    # Name resolution has no timeout of its own: a thread that is not waited for keeps the promise of a second.
    threading.Thread(target=knock, daemon=True).start()
    done.wait(_PROBE_SECONDS)
    return bool(reached)


def _has_weights(folder: Path) -> bool:
    return any(folder.glob("*.safetensors")) or (folder / _OLD).is_file()


def _not_found(source: str, name: str, instead: str) -> str:
    from huggingface_hub import constants

    return (
        f"{name}: no weights on this machine and the Hub cannot be reached. Looked for a folder {source!r} and in the "
        f"Hub's cache {constants.HF_HUB_CACHE}. Either run `kshot models pull {name}` where there is a network "
        f"(HF_HOME names the cache to copy over), or work without downloads: {instead}"
    )
