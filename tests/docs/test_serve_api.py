"""The curl examples of docs/how_to/serve.md, one after another, against a real server."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from PIL import Image
from pycocotools.coco import COCO

from tests.support.page_server import serving
from tests.support.served import pictures

PAGE = Path(__file__).resolve().parents[2] / "docs" / "how_to" / "serve.md"


def test_the_examples_run_one_after_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if shutil.which("curl") is None:
        pytest.skip("needs curl")
    monkeypatch.chdir(tmp_path)
    text = "\n".join(re.findall(r"^```bash\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.M | re.S))
    lines = [line for line in text.replace("\\\n", " ").splitlines() if line]
    assert len(lines) >= 12 and all(line.startswith("curl -sf ") for line in lines)
    images = pictures(tmp_path / "images")
    with serving(images, tmp_path / "images-kshot", "--backbone", "toy", "--size", "96") as server:
        for line in lines:
            command = line.replace("http://127.0.0.1:8765", server.address.rstrip("/"))
            done = subprocess.run(command, shell=True, capture_output=True, text=True, check=False)
            assert done.returncode == 0, (line, done.stdout, done.stderr)
    with Image.open("mask.png") as mask:
        assert mask.size == (128, 192)  # labels, and below them the certainties
    assert Path("areas.csv").read_text().startswith("image,state,cat area")
    assert len(COCO("images-kshot/export/coco/coco.json").imgs) >= 1
