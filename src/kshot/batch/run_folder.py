"""The output folder of a run: who may write into it, what is done already, and its manifest."""

import contextlib
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from kshot.batch.inputs import Shard
from kshot.batch.protection import remove_results
from kshot.errors import OutputError, SettingError
from kshot.io.atomic import is_abandoned, write_text
from kshot.io.manifest import (
    FAILED,
    MANIFEST,
    SETTINGS,
    SHARD_MANIFESTS,
    Record,
    read_manifest,
    read_records,
    read_settings,
    write_records,
)

_LOCK = ".lock"
_CLOSING_SECONDS = 600
# Options that decide the files of a run, and how a person sets them.
_BINDING = {
    "formats": "--format",
    "export": "--instances, --polygons, --tolerance, --copy-images",
    "refiner": "--refiner",
    "refiner_settings": "--set",
    "dtype": "--dtype",
    "engine": "--inference-engine",
    "tiling": "--tile, --overlap",
    "look": "--bands, --stretch",
    "every": "--every",
    "table": "--table",
    "pixel_size": "--pixel-size",
    "thresholds": "--min-presence, --min-score, --min-area",
}


class RunFolder:
    """One run's hold on an output folder, or one shard's.

    Whoever enters it is alone: another run of the whole, or of the same shard, gets an `OutputError`. The hold ends
    with the process, however it ends, so a killed run leaves no lock that somebody has to remove.
    """

    def __init__(self, out: Path, shard: Shard | None = None):
        self.out, self.shard = out, shard
        part = f"-{shard.number}-of-{shard.count}" if shard else ""
        self.manifest, self.timing = out / f"manifest{part}.jsonl", out / f"timing{part}.jsonl"
        self.own: set[str] = set()
        self._whole = FileLock(out / _LOCK, timeout=0)
        self._held = contextlib.ExitStack()

    def __enter__(self) -> "RunFolder":
        try:
            self.out.mkdir(parents=True, exist_ok=True)
            with contextlib.ExitStack() as held:
                self._lock(held)
                self._held = held.pop_all()
        except Timeout as error:
            raise OutputError(
                f"{self.out}: another run is writing into it; wait until it ends, or choose another folder with -o"
            ) from error
        except OSError as error:
            raise OutputError(f"{self.out}: cannot be written ({error.strerror or error})") from error
        return self

    def __exit__(self, *_: object) -> None:
        self._held.close()

    def _lock(self, held: contextlib.ExitStack) -> None:
        """A run of the whole holds all locks; a shard holds its own, and that of the whole until it is open."""
        held.enter_context(self._whole)
        for manifest in [self.manifest] if self.shard else self.out.glob(SHARD_MANIFESTS):
            held.enter_context(FileLock(self.out / f"{_LOCK}{manifest.stem.removeprefix('manifest')}", timeout=0))
        if not self.shard:
            # Half-written files of a killed run; nobody else can be writing here now.
            for path in self.out.rglob(".kshot-*"):
                if is_abandoned(path):
                    path.unlink(missing_ok=True)

    def open(self, settings: Mapping[str, Any], *, resume: bool, overwrite: bool) -> dict[str, Record]:
        """Records of earlier runs that count, by input, after refusing to mix two runs. Raises `SettingError`."""
        shards = any(self.out.glob(SHARD_MANIFESTS))
        begun = shards or (self.out / MANIFEST).exists()
        if self.shard and overwrite:
            raise SettingError(
                f"overwrite (--overwrite) beside shard {self.shard}: others may be at work; remove {self.out} first"
            )
        # Other shards' results are no reason to stop; what a run of the whole left is.
        ours = self.manifest.exists() or (begun and not shards) if self.shard else begun
        if ours and not (resume or overwrite):
            raise SettingError(
                f"{self.out}: holds the results of a run; continue it (resume, --resume), or overwrite it (--overwrite)"
            )
        if begun and not overwrite:
            self._check_same(settings)
        else:
            if begun:
                remove_results(self.out)
            self.timing.unlink(missing_ok=True)
            write_text(self.out / SETTINGS, json.dumps(settings, indent=2) + "\n")
        records = read_manifest(self.out) if begun and not overwrite else []
        done = {record["input"]: record for record in records if record["status"] != FAILED}
        self.own = {r["input"] for r in read_records(self.manifest)} & set(done) if self.shard else set(done)
        write_records(self.manifest, (done[name] for name in self.own))
        if self.shard:
            self._whole.release()
        else:
            for path in self.out.glob(SHARD_MANIFESTS):
                path.unlink(missing_ok=True)
        return done

    def close(self, records: Iterable[Record]) -> list[Record]:
        """Write the manifest in the order of the inputs' names; a shard also writes that of the whole run.

        Returns the records of the whole run: those of all shards that have written some.
        """
        write_records(self.manifest, records)
        if self.shard:
            write_records(self.out / MANIFEST, read_manifest(self.out))
        return read_records(self.out / MANIFEST)

    @contextlib.contextmanager
    def merging(self) -> Iterator[None]:
        """Lets a shard alone write the files that all shards share; a run without shards is alone already."""
        if not self.shard:
            yield
            return
        try:
            self._whole.acquire(timeout=_CLOSING_SECONDS)
        except Timeout as error:
            raise OutputError(f"{self.out}: another run has held it for {_CLOSING_SECONDS} s") from error
        yield
        self._whole.release()

    def _check_same(self, now: Mapping[str, Any]) -> None:
        """Refuse settings that would make other files than those that are there."""
        before = read_settings(self.out)
        now = json.loads(json.dumps(now))  # tuples become lists, as in the file
        # The images' folder may be mounted elsewhere on each of several machines.
        for name, options in (_BINDING | ({} if self.shard else {"images": "the folder of images"})).items():
            if before.get(name) != now.get(name):
                raise SettingError(
                    f"{self.out}: the run in it had {name} {before.get(name)}, now it is {now.get(name)}; "
                    f"give the same again ({options}), choose another folder, or overwrite it (--overwrite)"
                )
        # Last, because most options make another task of the same supports.
        if before.get("task") != now["task"]:
            raise SettingError(
                f"{self.out}: holds the results of another task; choose another folder, or overwrite it (--overwrite)"
            )
