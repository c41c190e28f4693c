"""What the default path imports: nothing that it does not use, as each import costs a user a second or more."""

import json
import subprocess
import sys
from pathlib import Path

UNUSED = {"transformers", "huggingface_hub", "scipy", "skimage", "matplotlib", "pandas", "yaml"}
FIT_AND_PREDICT = """
import numpy as np
segmenter = kshot.Segmenter(backbone="tiny", device="cpu")
image, mask = np.zeros((48, 64, 3), np.uint8), np.zeros((48, 64), bool)
image[8:40, 8:40] = mask[8:40, 8:40] = 1
segmenter.predict(segmenter.fit([kshot.Shot(image, mask=mask)]), image)
"""
LABEL = """
from kshot.cli import main
sys.argv = ["kshot", "label", *sys.argv[1:], "--backbone", "tiny", "--device", "cpu", "--limit", "1"]
try:
    main()
except SystemExit as end:
    assert not end.code
"""


def modules_after(code: str, *arguments: object) -> set[str]:
    """The modules that a new process has imported at the end of some code."""
    told = "\nimport json; print(json.dumps(sorted(sys.modules)))"
    command = [sys.executable, "-c", f"import sys, kshot\n{code}{told}", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return set(json.loads(done.stdout.splitlines()[-1]))


def test_fit_and_predict_with_tiny_import_no_more_than_they_use() -> None:
    found = modules_after(FIT_AND_PREDICT)
    assert not sorted(found & (UNUSED | {"pycocotools", "jinja2", "typer"}))


def test_labelling_a_folder_imports_no_more_than_it_uses(
    support_folder: Path, image_folder: Path, tmp_path: Path
) -> None:
    found = modules_after(LABEL, support_folder, image_folder, "-o", tmp_path / "out")
    assert (tmp_path / "out" / "report.html").is_file()
    assert not sorted(found & (UNUSED | {"av", "ray"}))
