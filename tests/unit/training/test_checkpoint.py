"""The checkpoint file by itself."""

from copy import deepcopy
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from kshot.errors import TrainingError
from kshot.training import checkpoint


def test_a_checkpoint_comes_back_to_the_bit(tmp_path: Path) -> None:
    model, path = torch.nn.Linear(3, 2), tmp_path / "x.safetensors"
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    mean = deepcopy(model)
    torch.nn.init.constant_(mean.weight, 0.5)
    checkpoint.save(path, {"step": 7}, model, mean, optimizer)
    facts, tensors = checkpoint.read(path)
    other, average = torch.nn.Linear(3, 2), torch.nn.Linear(3, 2)
    fresh = torch.optim.AdamW(other.parameters())
    checkpoint.restore(path, tensors, other, average, fresh)
    assert facts == {"step": 7} and torch.equal(average.weight, torch.full((2, 3), 0.5))
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), other.parameters(), strict=True))
    one, two = optimizer.state_dict()["state"], fresh.state_dict()["state"]
    assert all(torch.equal(one[n][key], two[n][key]) for n in one for key in one[n])
    assert torch.equal(checkpoint.weights_of(path)[1]["weight"], average.weight)


def test_what_is_no_checkpoint_is_told(tmp_path: Path) -> None:
    (tmp_path / "x.safetensors").write_bytes(b"\0" * 100)
    with pytest.raises(TrainingError, match=r"x\.safetensors: not a checkpoint of kshot"):
        checkpoint.read(tmp_path / "x.safetensors")
    save_file({"a": torch.zeros(1)}, tmp_path / "y.safetensors")
    with pytest.raises(TrainingError, match=r"y\.safetensors: not a checkpoint of kshot"):
        checkpoint.read(tmp_path / "y.safetensors")
