"""`kshot train background` as a person types it."""

import json
from pathlib import Path

from PIL import Image

from tests.support.commands import run
from tests.support.drawing import draw


def test_the_command_says_what_it_made_and_what_it_left_out(tmp_path: Path) -> None:
    for folder, seeds in (("photos", range(4)), ("tests", range(1))):
        (tmp_path / folder).mkdir()
        for seed in seeds:
            Image.fromarray(draw(seed)[0]).save(tmp_path / folder / f"{seed}.png")
    command = ["train", "background", tmp_path / "photos", "--backbone", "toy", "--clusters", 16, "-o"]
    told = json.loads(run(*command, tmp_path / "a", "--json", "--limit", 3).stdout)
    assert told["photographs"] == 3 and Path(told["weights"]).is_file()
    said = run(*command, tmp_path / "b", "--without", tmp_path / "tests")
    assert f"left out 1 photograph that {tmp_path / 'tests'} holds too" in said.stderr.replace("\n", " ")
    assert "192 patches of 3 photographs" in said.stdout and f"--set method.weights={tmp_path / 'b'}" in said.stdout
