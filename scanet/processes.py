"""Several processes that train together, one on each device: started by `accelerate launch`, its
`notebook_launcher` or `torchrun`, which say by RANK and WORLD_SIZE who is who.

Without them there is one process, number 0 of 1, and everything here does nothing.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import TypeVar

import torch
from torch import distributed

T = TypeVar("T")

#: How long one process waits for another: number 0 may have to fill a store first.
PATIENCE = timedelta(hours=6)

_by_itself = False  # process 0, in `first_by_itself`


def join(device: torch.device) -> None:
    """Meet the other processes, if this one was started with others and has not met them yet."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1 and not distributed.is_initialized():
        if device.type == "cuda":  # the process's own GPU, which NCCL would else guess from its number
            own = torch.device("cuda", torch.cuda.current_device())
            distributed.init_process_group("nccl", timeout=PATIENCE, device_id=own)
        else:
            distributed.init_process_group("gloo", timeout=PATIENCE)


def rank() -> int:
    """This process's number; number 0 writes the files."""
    return distributed.get_rank() if _met() else 0


def count() -> int:
    return distributed.get_world_size() if _met() else 1


def _met() -> bool:
    return distributed.is_initialized() and not _by_itself


def average(tensor: torch.Tensor) -> None:
    """Put the mean over all processes in its place."""
    if count() > 1:
        distributed.all_reduce(tensor)
        tensor /= count()


def gather(value: T) -> list[T]:
    """Every process's value, by number, in each of them."""
    if count() == 1:
        return [value]
    values: list[T | None] = [None] * count()
    distributed.all_gather_object(values, value)
    return values  # type: ignore[return-value]


@contextmanager
def first_goes_first() -> Iterator[None]:
    """Process 0 does the block alone, and then the others do: they find the files that it wrote."""
    if rank() > 0:
        distributed.barrier()
    try:
        yield
    finally:
        if rank() == 0 and count() > 1:
            distributed.barrier()


@contextmanager
def first_by_itself() -> Iterator[bool]:
    """Process 0 does the block as if it had been started alone, which is True; for the others it is False.

    They wait for it at the end.
    """
    global _by_itself
    _by_itself = first = rank() == 0
    try:
        yield first
    finally:
        _by_itself = False
        if count() > 1:
            distributed.barrier()
