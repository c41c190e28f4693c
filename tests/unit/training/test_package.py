"""`kshot.training` as a package: its functions, what they import, and how often they decode a photograph."""

import inspect
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

import kshot.training
from kshot.cli import train_background, train_distill, train_episodic, train_finetune, train_heads
from kshot.io.images import read_image
from kshot.training import teacher_features, unlabelled
from kshot.training.episodic_recipes import RECIPES, recipe
from tests.support.photographs import folder_of

COMMANDS = {
    "background_prior": train_background.background,
    "distill": train_distill.distill,
    "episodic": train_episodic.episodic,
    "finetune": train_finetune.finetune,
    "heads": train_heads.heads,
}
# What a command spells in another way: as text, as an empty list, or within an object that it makes.
SPELLED = {"sides", "augment", "novel", "base", "without", "cache", "recipe", "partial"}


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_commands_and_functions_have_the_same_defaults(name: str) -> None:
    function, command = (
        {key: each.default for key, each in inspect.signature(made).parameters.items() if each.default != each.empty}
        for made in (getattr(kshot.training, name), COMMANDS[name])
    )
    own = function.keys() - {"progress"} - SPELLED
    assert own <= command.keys()
    assert {key: function[key] for key in own} == {key: command[key] for key in own}


def test_text_defaults_mean_the_same() -> None:
    sides = inspect.signature(train_distill.distill).parameters["sides"].default
    assert train_distill.parse_sides(sides) == inspect.signature(kshot.training.distill).parameters["sides"].default
    assert recipe(inspect.signature(train_episodic.episodic).parameters["recipe_"].default) == RECIPES["seed"]


def test_the_package_imports_no_torch_and_its_functions_stay_functions() -> None:
    script = (
        "import sys, kshot.training, kshot.training.schedule, kshot.training.episodic_recipes\n"
        "assert not {'torch', 'transformers', 'scipy', 'PIL'} & set(sys.modules), sorted(sys.modules)\n"
        "import kshot.training.distillation, kshot.training.pooling_heads, kshot.training.background_clusters\n"
        "import kshot.training.episodic_training\n"
        "assert all(callable(getattr(kshot.training, name)) for name in kshot.training.__all__)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


def test_a_photograph_is_decoded_at_most_twice_before_the_first_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once to check it and to look for near duplicates, and once for the basis and the targets."""
    photos, other, reads = folder_of(tmp_path / "photos", 6), folder_of(tmp_path / "other", 9), Counter[Path]()
    for path in other.rglob("[0-7].png"):
        path.unlink()

    def counted(path: Path, **more: Any) -> Any:
        reads[path] += 1
        return read_image(path, **more)

    for module in (unlabelled, teacher_features):
        monkeypatch.setattr(module, "read_image", counted)
    seen: list[Counter[Path]] = []

    def progress(stage: str, done: int, total: int, figures: dict[str, float]) -> None:
        if stage == "targets":
            seen.append(reads.copy())

    kshot.training.distill(
        photos,
        tmp_path / "run",
        ["toy", "tiny"],
        without=[other],
        views=2,
        grid=6,
        dim=12,
        width=64,
        blocks=1,
        start="random",
        sides=(32,),
        epochs=0.5,
        batch_size=2,
        dtype="float32",
        device="cpu",
        progress=progress,
    )
    assert {seen[-1][path] for path in photos.rglob("*.png")} == {2}
