"""What a network costs, counted from the network itself and not from a formula: parameters, operations, bytes."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode, flop_registry

from scanet.config import STRIDE, Network
from scanet.losses import heatmap_loss
from scanet.model import SCANet


def parameters(config: Network) -> int:
    """Trainable parameters, without allocating them."""
    with torch.device("meta"):
        return sum(p.numel() for p in SCANet(config).parameters())


@cache
def flops(config: Network, input_size: int = 256) -> int:
    """Floating-point operations of convolutions and matrix products, forward, one image; a multiply-add is two.

    Training takes three times as many: the gradients by features and by weights cost as much as the forward pass.
    """
    with FakeTensorMode(), torch.inference_mode(), FlopCounterMode(display=False) as counter:
        SCANet(config).eval()(torch.empty(1, 3, input_size, input_size))
    return counter.get_total_flops()


#: Kinds of operations, and words by which an operation's name tells its kind; the first that fits counts.
KINDS = {
    "pooling and up-sampling": ("pool", "upsample"),  # before "linear", which is in "bilinear"
    "convolution": ("conv", "mm", "linear"),
    "normalisation": ("batch_norm",),
    "activation": ("relu", "threshold", "clamp_min"),
    "copies and casts": ("copy", "clone", "contiguous", "fill", "zero", "to_mkldnn", "to_dense"),
    "sums and joins": ("add", "cat", "sum", "stack"),
}
OTHER = "attention, loss, update"


def kind(name: str) -> str:
    """The kind of an operation by its name, as PyTorch's dispatcher and its profiler have it."""
    word = name.removeprefix("aten::").removeprefix("_foreach_")
    if word.startswith("addc"):  # the optimizer's
        return OTHER
    return next((k for k, words in KINDS.items() if any(w in word for w in words)), OTHER)


@dataclass(frozen=True)
class Operation:
    """One call of an operation: floating-point operations, and bytes that it reads and writes from and to memory."""

    name: str
    flops: int
    bytes: int


class _Ledger(TorchDispatchMode):
    """Notes every operation below autograd and autocast. Views move nothing; all others read their tensors whole."""

    def __init__(self) -> None:
        super().__init__()
        self.operations: list[Operation] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        returns = func._schema.returns
        view = any(r.alias_info is not None and not r.alias_info.is_write for r in returns)
        if func.namespace == "aten" and not view:
            count = flop_registry.get(func._overloadpacket)
            self.operations.append(
                Operation(
                    func._overloadpacket.__name__,
                    int(count(*args, **kwargs, out_val=out)) if count else 0,
                    sum(
                        t.numel() * t.element_size()
                        for t in tree_leaves((args, kwargs, out))
                        if isinstance(t, Tensor)
                    ),
                )
            )
        return out


def training_step(config: Network, input_size: int, batch_size: int, *, bf16: bool) -> list[Operation]:
    """The forward and backward passes of one training step, in eager mode without any fusion; not the update.

    Weights are cast to bf16 one by one, as autocast does it: the package's one cast of all (`train.Weights`) moves as
    many bytes, a fiftieth of the step's. Nothing is computed, and no memory taken.
    """
    with FakeTensorMode():
        forward = _forward(config, input_size, batch_size, bf16=bf16)
        with _Ledger() as ledger:
            forward().backward()
    return ledger.operations


@cache
def activations(config: Network, input_size: int, *, bf16: bool) -> int:
    """Bytes that the forward pass keeps for the backward pass, for each image of a batch."""
    kept = []
    for batch_size in (2, 4):
        storages: dict[int, Tensor] = {}

        def pack(tensor: Tensor, storages: dict[int, Tensor] = storages) -> Tensor:
            storages[tensor.untyped_storage()._cdata] = tensor  # which keeps the storage, and so its address
            return tensor

        with FakeTensorMode(), torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            _forward(config, input_size, batch_size, bf16=bf16)()
        kept.append(sum(t.untyped_storage().nbytes() for t in storages.values()))
    return (kept[1] - kept[0]) // 2


def _forward(config: Network, input_size: int, batch_size: int, *, bf16: bool) -> Callable[[], Tensor]:
    """A function that gives the training loss of a batch of nothing."""
    cells = input_size // STRIDE
    model = SCANet(config)
    images = torch.empty(batch_size, 3, input_size, input_size)
    targets = torch.empty(batch_size, config.joints, cells, cells)
    sharper = config.row.attention == "sharper"
    noise = torch.empty(batch_size, config.stacks, cells, cells) if sharper else None

    def loss() -> Tensor:
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            heatmaps, _ = model(images, noise)
        return heatmap_loss(heatmaps, targets)

    return loss
