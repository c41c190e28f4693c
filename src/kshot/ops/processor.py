"""What the processor has that decides how to compute."""

import os
from functools import cache
from typing import Any

import torch


def core_count() -> int:
    """Cores that this process may use: in a container or under a queue fewer than the machine's."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return cores or 1


@cache
def has_matrix_units() -> bool:
    """Whether it has matrix units for bfloat16 (AMX)."""
    capabilities: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    return bool(capabilities.get("amx_bf16"))
