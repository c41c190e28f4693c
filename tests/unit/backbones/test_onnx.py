"""The packed encoder goes to ONNX by torch's own exporter, and onnxruntime finds the same as torch, at any size."""

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from torch import nn

from kshot.backbones.base import load_backbone
from kshot.backbones.tiny import STRIDE, Output


class Plain(nn.Module):
    """The net with a tuple for what it returns, as ONNX names its outputs."""

    def __init__(self, net: nn.Module):
        super().__init__()
        self.net = net

    def forward(self, pixels: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Cells, token and objectness."""
        out: Output = self.net(pixels)
        return out.dense, out.token, out.objectness


@pytest.fixture(scope="module")
def net() -> Plain:
    backbone: Any = load_backbone("tiny")
    return Plain(backbone.model).eval()


@pytest.mark.filterwarnings("ignore")  # torch's exporter uses what torch deprecates
def test_onnxruntime_finds_what_torch_finds(net: Plain, tmp_path: Path) -> None:
    file, sixteen = tmp_path / "tiny.onnx", 16  # pixels come in whole patches
    free = {
        0: torch.export.Dim("batch"),
        2: sixteen * torch.export.Dim("rows"),
        3: sixteen * torch.export.Dim("columns"),
    }
    program = torch.onnx.export(net, (torch.zeros(2, 3, 96, 96),), dynamo=True, dynamic_shapes=(free,), verbose=False)
    assert program is not None
    program.save(file)
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    for batch, height, width in ((2, 96, 96), (1, 64, 160)):
        pixels = torch.randn(batch, 3, height, width, generator=torch.Generator().manual_seed(0))
        found = session.run(None, {session.get_inputs()[0].name: pixels.numpy()})
        wanted = [part.numpy() for part in net(pixels)]
        assert wanted[0].shape[2:] == (height // STRIDE, width // STRIDE)
        for name, one, other in zip(("dense", "token", "objectness"), found, wanted, strict=True):
            np.testing.assert_allclose(one, other, atol=2e-4, err_msg=name)
