"""Folders: every image gets a line in the manifest, whatever happens to it or to the run.

An output folder holds `manifest.jsonl` (a line per image), `settings.json`, and a folder per format whose paths
mirror the inputs'. Files appear whole or not at all, so a run that was stopped anywhere continues with `resume`, and
its files are then those of a run that nobody stopped, byte for byte; `timing.jsonl` alone tells them apart.
"""

from kshot.batch.inputs import Input, Shard, plan
from kshot.batch.run import Summary, label_folder
from kshot.io.manifest import Record, read_manifest

__all__ = [
    "Input",
    "Record",
    "Shard",
    "Summary",
    "label_folder",
    "plan",
    "read_manifest",
]
