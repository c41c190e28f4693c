"""Task files whose method is not kshot's own: nothing runs that nobody named, and what is missing is said."""

import hashlib
import json
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import kshot
from kshot.errors import PluginError, SettingError, TaskError, TaskFileError
from kshot.io.tensor_file import read_task, write_task
from kshot.types import Shot
from tests.support.commands import TOY, run
from tests.support.drawing import draw
from tests.support.listings import ADDING, example_distribution, installed, listings

MINE = listings(ADDING)["mine.py"]
# Tells beside itself that it has run.
TELLING = MINE + "\nfrom pathlib import Path\nPath(__file__).with_name('ran').touch()\n"


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def kshot_alone(*arguments: object) -> subprocess.CompletedProcess[str]:
    """A command in a process that has loaded nothing yet."""
    command = [sys.executable, "-m", "kshot", *(str(a) for a in arguments)]
    return subprocess.run(command, capture_output=True, text=True)


def segmenter(method: str = "mine.py") -> kshot.Segmenter:
    return kshot.Segmenter(backbone="toy", size=96, method=method)


def edited(text: str, old: str, new: str) -> str:
    assert old in text
    return text.replace(old, new)


def test_a_task_is_predicted_with_the_file_of_its_method_alone(support_folder: Path, image_folder: Path) -> None:
    Path("mine.py").write_text(TELLING)
    run("label", support_folder, image_folder, "--method", "./mine.py", *TOY, "-o", "labelled")
    run("fit", support_folder, "--method", "./mine.py", *TOY, "-o", "mine.kshot")
    source = {"file": "mine.py", "sha256": hashlib.sha256(TELLING.encode()).hexdigest()}
    assert json.loads(Path("labelled/settings.json").read_text())["method_source"] == source
    assert read_task(Path("mine.kshot"))[0]["method_source"] == source

    Path("ran").unlink()
    refused = kshot_alone("predict", "mine.kshot", image_folder, "-o", "out")
    assert refused.returncode == 1 and not Path("out").exists() and not Path("ran").exists()
    assert "name the file: --method mine.py" in refused.stderr
    Path("mine.py").write_text(TELLING + "# changed\n")
    changed = kshot_alone("predict", "mine.kshot", image_folder, "--method", "mine.py", "-o", "out")
    assert changed.returncode == 1 and "is not the mine.py that the task was fitted with" in changed.stderr
    Path("mine.py").write_text(TELLING)
    done = kshot_alone("predict", "mine.kshot", image_folder, "--method", "mine.py", "-o", "out")
    assert done.returncode == 0, done.stderr
    for mask in Path("labelled/masks").rglob("*.png"):
        again = Path("out", mask.relative_to("labelled"))
        np.testing.assert_array_equal(np.asarray(Image.open(mask)), np.asarray(Image.open(again)))
    assert not Path("__pycache__").exists()


def test_more_supports_are_added_with_the_file(support_folder: Path) -> None:
    Path("mine.py").write_text(MINE)
    run("fit", support_folder, "--method", "mine.py", *TOY, "-o", "a.kshot")
    more = ["fit", support_folder, "--add-to", "a.kshot", "-o", "b.kshot"]
    assert kshot_alone(*more).returncode == 1
    assert kshot_alone(*more, "--method", "mine.py").returncode == 0
    assert len(kshot.load_task("b.kshot", "mine.py").supports) == 4


def test_a_task_is_of_one_method(shots: list[Shot]) -> None:
    Path("mine.py").write_text(MINE)
    Path("other.py").write_text(edited(MINE, '"mine"', '"other"'))
    own, builtin = segmenter().fit(shots).save("own.kshot"), segmenter("density").fit(shots).save("density.kshot")
    assert kshot.load_task(own).method == "mine"  # the Segmenter has run the file
    assert kshot.load_task(builtin, "density").method == "density"
    for path, method in ((own, "other.py"), (own, "density"), (builtin, "mine.py"), (builtin, "prototype")):
        with pytest.raises(TaskError, match="a task of the method"):
            kshot.load_task(path, method)


def test_the_digest_of_a_task_covers_the_file(shots: list[Shot]) -> None:
    Path("mine.py").write_text(MINE)
    before = segmenter().fit(shots)
    Path("mine.py").write_text(MINE + "# changed\n")
    after = segmenter().fit(shots)
    assert before.digest() != after.digest() and before.source != after.source


@pytest.mark.parametrize("method", ["./mine.py", "mine.py", "mine", "../../mine.py", "kshot.methods.density"])
def test_no_word_in_a_task_file_makes_a_file_run(shots: list[Shot], method: str) -> None:
    Path("mine.py").write_text(TELLING)
    header, tensors = read_task(segmenter("density").fit(shots).save("t.kshot"))
    write_task(Path("t.kshot"), header | {"method": method}, tensors)
    with pytest.raises(TaskFileError, match="no method is called"):
        kshot.load_task("t.kshot")
    write_task(
        Path("t.kshot"), header | {"method": method, "method_source": {"file": "mine.py", "sha256": ""}}, tensors
    )
    with pytest.raises(TaskError, match="a task file never makes code run"):
        kshot.load_task("t.kshot")
    assert not Path("ran").exists()


@pytest.mark.parametrize("source", [1, "mine.py", {"file": 1}, {"distribution": "x"}, ["file"]])
def test_a_damaged_source_is_an_error_of_the_file(shots: list[Shot], source: object) -> None:
    header, tensors = read_task(segmenter("density").fit(shots).save("t.kshot"))
    write_task(Path("t.kshot"), header | {"method_source": source}, tensors)
    with pytest.raises(TaskError):
        kshot.load_task("t.kshot")


def test_another_process_has_the_segmenter_and_the_task(shots: list[Shot]) -> None:
    Path("mine.py").write_text(MINE)
    made = segmenter()
    task = made.fit(shots)
    picture = draw(3)[0]
    Path("sent").write_bytes(pickle.dumps((made, task, picture)))
    script = """
import pathlib, pickle, sys
segmenter, task, picture = pickle.loads(pathlib.Path("sent").read_bytes())
sys.stdout.buffer.write(segmenter.predict(task, picture).mask.tobytes())
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True)
    assert done.stdout == made.predict(task, picture).mask.tobytes()
    Path("mine.py").write_text(MINE + "# changed\n")
    done = subprocess.run([sys.executable, "-c", script], capture_output=True)
    assert done.returncode and b"has changed since the task was fitted" in done.stderr


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ("import torch\n", "import nonsense\n", "ModuleNotFoundError: No module named 'nonsense'; line 5"),
        ("class Settings:", "class Settings", "SyntaxError"),
        ("import torch\n", "raise SystemExit(3)\n", "SystemExit"),
        ("@dataclass(frozen=True)\n", "", "it defines no dataclass Settings"),
        ("Task(base.Task)", "Task", "it defines no Task that inherits"),
        ("Settings = Settings", "pass", "its Task does not say Settings = Settings"),
        ('method = "mine"', 'method = "yours"', "its Task does not say method = 'mine'"),
        ("def _score", "def score_", "its Task does not define _score"),
        ("scale: float = 20.0", "scale: float", "its Settings cannot be made without values"),
    ],
)
def test_what_a_file_lacks_is_said(old: str, new: str, problem: str) -> None:
    Path("mine.py").write_text(edited(MINE, old, new))
    with pytest.raises(PluginError) as error:
        segmenter()
    assert problem in str(error.value) and "mine.py" in str(error.value)


def test_a_file_that_is_not_there_or_is_called_as_a_method() -> None:
    Path("dense-comparison.py").write_text(MINE)
    for name, problem in (("none.py", "none.py: cannot be read"), ("dense-comparison.py", "rename the file")):
        with pytest.raises(SettingError, match=problem):
            segmenter(name)
    assert kshot_alone("label", "a", "b", "--method", "none.py", "-o", "out").returncode != 0


def test_scores_of_another_shape_are_refused(shots: list[Shot]) -> None:
    Path("mine.py").write_text(edited(MINE, "return logits - logits[:1]", "return logits[1:]"))
    made = segmenter()
    with pytest.raises(TaskError, match=r"mine: its scores have the shape \(1, \d+, \d+\), expected \(2, "):
        made.predict(made.fit(shots), draw(3)[0])


@pytest.mark.parametrize(
    "text", ['method = "./mine.py"', '[label]\nmethod = "mine.py"', '[train.episodic]\nmethod = "x.py"']
)
def test_settings_beside_images_make_no_file_run(support_folder: Path, image_folder: Path, text: str) -> None:
    Path("mine.py").write_text(TELLING)
    Path(image_folder, "..", "kshot.toml").write_text(text)
    refused = kshot_alone("label", support_folder, image_folder, *TOY, "-o", "out")
    assert refused.returncode == 2 and "runs only where a person names it" in refused.stderr
    assert not Path("ran").exists()


def test_the_distribution_of_a_task_is_named_where_it_is_missing(shots: list[Shot]) -> None:
    with installed(Path("site"), example_distribution()):
        task = segmenter("nearest").fit(shots)
        task.save("t.kshot")
        assert kshot.load_task("t.kshot").digest() == task.digest()
        assert task.source_facts() == {"method_source": {"distribution": "kshot-example", "version": "1.0"}}
    with pytest.raises(TaskError, match=r"method nearest is of kshot-example 1\.0.*pip install kshot-example"):
        kshot.load_task("t.kshot")
