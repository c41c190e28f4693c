"""Find the folder of a published model: a local folder, the Hub's own cache, or the Hub when it answers."""

import threading
from pathlib import Path
from typing import Any

from kshot.errors import BackboneError, WeightsNotFoundError

PATTERNS = ("config.json", "preprocessor_config.json", "*.safetensors", "*.safetensors.index.json")
INSTEAD = "--backbone classic"
_PROBE_SECONDS = 0.8


def find_folder(source: str, name: str, *, download: bool = True, instead: str = INSTEAD) -> Path:
    """The folder that holds `source` (a folder, or a Hub id), downloading it when that is allowed and possible.

    instead: the options that do without, for the message.

    Raises `WeightsNotFoundError` within a second when it is not here and the Hub does not answer.
    """
    if Path(source).is_dir():
        return Path(source)
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
    return folder if (folder / "config.json").is_file() and any(folder.glob("*.safetensors")) else None


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
        return Path(snapshot_download(source, allow_patterns=list(PATTERNS)))
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


def read_model(folder: Path, loader: str, **arguments: Any) -> Any:
    """A model of transformers' class `loader` with the weights in a folder, float32; raises `BackboneError`."""
    import torch
    import transformers
    from transformers.utils import logging as transformers_logging

    # Its progress bar over tensors says nothing that a user of kshot needs.
    shown = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()
    try:
        read = getattr(transformers, loader).from_pretrained
        return read(folder, dtype=torch.float32, use_safetensors=True, **arguments)
    except (OSError, ValueError, RuntimeError) as error:
        raise BackboneError(f"{folder}: {error}") from error
    finally:
        if shown:
            transformers_logging.enable_progress_bar()


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


def _not_found(source: str, name: str, instead: str) -> str:
    from huggingface_hub import constants

    return (
        f"{name}: no weights on this machine and the Hub cannot be reached. Looked for a folder {source!r} and in the "
        f"Hub's cache {constants.HF_HUB_CACHE}. Either run `kshot models pull {name}` where there is a network "
        f"(HF_HOME names the cache to copy over), or work without downloads: {instead}"
    )
