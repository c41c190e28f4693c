"""Training: small encoders from large ones, heads without labels, background priors, methods on episodes.

Whatever a `kshot train` command does, a function here does::

    import kshot.training

    kshot.training.distill("photos/", "runs/mine", ["dinov2-small"])

Importing this package loads no torch; it comes with the first name that needs it.
"""

import importlib
from typing import TYPE_CHECKING, Any

# No module of this package has the name of a function: importing such a module would replace the function.
_HOMES = {
    "background_prior": "background_clusters",
    "distill": "distillation",
    "episodic": "episodic_training",
    "finetune": "finetuning",
    "heads": "pooling_heads",
    "recipe": "episodic_recipes",
}

__all__ = ["background_prior", "distill", "episodic", "finetune", "heads", "recipe"]

if TYPE_CHECKING:
    from kshot.training.background_clusters import background_prior as background_prior
    from kshot.training.distillation import distill as distill
    from kshot.training.episodic_recipes import recipe as recipe
    from kshot.training.episodic_training import episodic as episodic
    from kshot.training.finetuning import finetune as finetune
    from kshot.training.pooling_heads import heads as heads


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'kshot.training' has no attribute {name!r}")
    return getattr(importlib.import_module(f"kshot.training.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
