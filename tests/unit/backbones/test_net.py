"""The network behind `tiny`: its shapes, and what must not change what it sees."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kshot.backbones._net import Block, Net
from tests.support.nets import SMALL


@settings(max_examples=15, deadline=None)
@given(rows=st.integers(1, 9), columns=st.integers(1, 9))
def test_every_grid_of_eight_pixels_works(rows: int, columns: int) -> None:
    torch.manual_seed(0)
    out = Net(SMALL).eval()(torch.randn(2, 3, 8 * rows, 8 * columns))
    assert out.dense.shape == (2, 12, rows, columns)
    assert out.token.shape == (2, 12) and out.objectness.shape == (2, rows, columns)


def test_attention_is_the_same_in_training_and_in_use() -> None:
    torch.manual_seed(0)
    block, tokens = Block(16, 2), torch.randn(2, 7, 16)
    torch.testing.assert_close(block.train()(tokens), block.eval()(tokens), atol=1e-5, rtol=1e-5)


def test_every_weight_learns() -> None:
    torch.manual_seed(0)
    net = Net(SMALL)
    out = net(torch.randn(2, 3, 32, 32))
    (out.dense.square().mean() + out.token.square().mean() + out.objectness.square().mean()).backward()
    idle = [name for name, weight in net.named_parameters() if weight.grad is None or not weight.grad.any()]
    assert idle == []


def test_a_traced_network_gives_the_same() -> None:
    """What an exporter does first; nothing in the network hangs on values of tensors."""
    torch.manual_seed(0)
    net, pixels = Net(SMALL).eval(), torch.randn(1, 3, 48, 40)
    exported = torch.export.export(net, (pixels,)).module()
    torch.testing.assert_close(exported(pixels)[0], net(pixels).dense)
