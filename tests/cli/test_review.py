"""Accepted masks of a run become supports, and the effect on the others is said."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from kshot.errors import SupportError
from kshot.io.images import read_mask
from tests.support.commands import TOY, run


def test_accepted_masks_become_supports(
    support_folder: Path, image_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    run("label", support_folder, image_folder, "-o", "out", *TOY)
    for name in ("a.png", "sub/a.png"):
        Path("out/accepted", name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(Path("out/masks", name), Path("out/accepted", name))
    emptied = np.zeros_like(read_mask(Path("out/masks/b.png")))  # a person says that none of it is there
    Image.fromarray(emptied).save("out/accepted/b.png")
    said = run("fit", support_folder, "--add", "out/accepted", "-o", "b.kshot", *TOY).stdout
    assert "5 support images" in said and "most doubtful other images" in said
    run("fit", support_folder, "-o", "a.kshot", *TOY)
    facts = json.loads(run("fit", "--add", "out/accepted", "--add-to", "a.kshot", "-o", "c.kshot", "--json").stdout)
    assert facts["supports"] == 5 and facts["effect"][0]["images"] == 1
    shutil.copy("out/masks/b.png", "out/accepted/other.png")
    wrong = run("fit", support_folder, "--add", "out/accepted", "-o", "d.kshot", *TOY, code=1)
    assert isinstance(wrong.exception, SupportError) and "no image of the run" in str(wrong.exception)


def test_options_of_the_run(support_folder: Path, image_folder: Path, tmp_path: Path) -> None:
    common = ["label", support_folder, image_folder, *TOY, "-o"]
    run(*common, tmp_path / "tiles", "--tile", 64, "--overlap", 16, "--workers", 2)
    run(*common, tmp_path / "shards", "--shard", "1/2")
    assert "4 processed" not in run(*common, tmp_path / "shards", "--shard", "2/2").stdout
    assert len((tmp_path / "shards" / "manifest.jsonl").read_text().splitlines()) == 4
    assert "4 processed" in run(*common, tmp_path / "rest", "--only-unannotated").stdout
    for wrong in (["--shard", "3"], ["--shard", "3/2"], ["--tile", "3"]):
        run(*common, tmp_path / "wrong", *wrong, code=1)
