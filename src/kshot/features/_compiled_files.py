"""Compiled networks on disk: what an engine made of a backbone on this machine, and whether it may be used.

A file is a line of JSON, with a checksum, and what was compiled. It lies in the user's cache; where that cannot be
written, each process compiles anew.
"""

import contextlib
import hashlib
import json
import logging
import os
from pathlib import Path
from typing import NamedTuple

from kshot.errors import OutputError
from kshot.io.atomic import atomic_path
from kshot.io.paths import user_cache

log = logging.getLogger(__name__)
_MAX_FILES = 12


class Compiled(NamedTuple):
    """A compiled network."""

    problem: str
    """Why it must not be used; empty when it may."""
    data: bytes
    """What the engine wrote; empty where it has nothing to write."""


def read_compiled(key: str) -> Compiled | None:
    """What was kept under a key; None where there is nothing whole."""
    path = _path(key)
    try:
        first, _, data = path.read_bytes().partition(b"\n")
        facts = json.loads(first)
        if facts["key"] != key or facts["sha256"] != hashlib.sha256(data).hexdigest():
            raise ValueError("its contents do not match its checksum")
        found = Compiled(str(facts["problem"]), data)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        log.warning("%s: damaged, so it is made again (%s)", path, error)
        return None
    with contextlib.suppress(OSError):  # another user's cache can be read but not touched
        os.utime(path)
    return found


def write_compiled(key: str, compiled: Compiled) -> Compiled:
    """Keep what was compiled; the least recently used of more than a dozen go."""
    path = _path(key)
    facts = {"key": key, "sha256": hashlib.sha256(compiled.data).hexdigest(), "problem": compiled.problem}
    try:
        with atomic_path(path) as beside:
            beside.write_bytes(json.dumps(facts).encode() + b"\n" + compiled.data)
        files = sorted(path.parent.glob(f"*{path.suffix}"), key=lambda each: each.stat().st_mtime)
        for old in files[:-_MAX_FILES]:
            old.unlink(missing_ok=True)
    except (OutputError, OSError) as error:
        log.info("the compiled network is not kept: %s", error)
    return compiled


def _path(key: str) -> Path:
    return user_cache() / "engines" / f"{key[:32]}.compiled"
