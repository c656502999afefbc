"""What a network costs, counted from the network itself and not from a formula: parameters and operations."""

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

from scanet.config import Network
from scanet.model import SCANet


def parameters(config: Network) -> int:
    """Trainable parameters, without allocating them."""
    with torch.device("meta"):
        return sum(p.numel() for p in SCANet(config).parameters())


def flops(config: Network, input_size: int = 256) -> int:
    """Floating-point operations of the convolutions for one image, forward, a multiply-add being two.

    Training takes three times as many: the gradients by features and by weights cost as much as the forward pass.
    """
    with FakeTensorMode(), torch.inference_mode(), FlopCounterMode(display=False) as counter:
        SCANet(config).eval()(torch.empty(1, 3, input_size, input_size))
    return counter.get_total_flops()
