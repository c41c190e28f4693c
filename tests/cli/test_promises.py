"""What the README promises: "nothing of it here" is an answer, and inputs are never written to."""

import json
from pathlib import Path

import pytest

from kshot.batch import read_manifest
from kshot.io.images import read_mask
from tests.support.commands import TOY, run


def state(*folders: Path) -> dict[str, tuple[bytes, int, int]]:
    """Contents, times and modes of all files and folders."""
    paths = [path for folder in folders for path in (folder, *folder.rglob("*"))]
    return {
        str(path): (path.read_bytes() if path.is_file() else b"", path.stat().st_mtime_ns, path.stat().st_mode)
        for path in paths
    }


def test_nothing_of_it_here_is_an_answer(support_folder: Path, image_folder: Path, tmp_path: Path) -> None:
    done = json.loads(run("label", support_folder, image_folder, "-o", tmp_path / "out", "--json", *TOY).stdout)
    empty = [record for record in read_manifest(tmp_path / "out") if record["status"] == "empty"]
    assert done["empty"] == 1 and [record["input"] for record in empty] == ["none.jpg"]
    assert not read_mask(tmp_path / "out" / empty[0]["mask"]).any()
    assert empty[0]["classes"]["disc"]["pixels"] == 0


@pytest.mark.parametrize("to", ["png", "coco", "yolo", "voc", "labelme", "cvat", "label-studio"])
def test_inputs_of_every_command_are_never_written_to(
    support_folder: Path, image_folder: Path, tmp_path: Path, to: str
) -> None:
    before = state(support_folder, image_folder)
    out, task = tmp_path / "out", tmp_path / "disc.kshot"
    run("fit", support_folder, "-o", task, *TOY)
    for flags in ([], ["--overwrite"], ["--resume"]):
        run("predict", task, image_folder, "-o", out, "--format", f"png,{to}", *flags)
    run("convert", support_folder, "--to", to, "-o", tmp_path / "converted", "--copy-images")
    run("report", out)
    assert state(support_folder, image_folder) == before
