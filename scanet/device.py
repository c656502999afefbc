"""Which processor, and which number format it is fast in."""

import ctypes
import os
import resource
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

import torch

from scanet.files import UserError


def pick_device(name: str | None = None) -> torch.device:
    """The device of that name (cuda, mps, cpu), by default the best there is; of several GPUs the launcher's.

    Raises UserError if it is not there.
    """
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    found = [device for device, available in there.items() if available]
    if name is not None and name not in found:
        raise UserError(f"this torch finds no device {name!r} on this machine: choose one of {', '.join(found)}")
    if (name or found[0]) == "cuda":
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    return torch.device(name or found[0])


def describe(device: torch.device) -> str:
    """For the first line of output and for run records: the device, its threads, its number format."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    threads = f", {torch.get_num_threads()} threads" if device.type == "cpu" else ""
    return f"{name}{threads}, {'bf16' if fast_bf16(device) else 'fp32'}"


def fast_bf16(device: torch.device) -> bool:
    """Whether the processor has bf16 instructions for convolutions."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return device.type == "cpu" and torch.ops.mkldnn._is_mkldnn_bf16_supported()


def autocast(device: torch.device) -> AbstractContextManager[None]:
    """bf16 for convolutions where that is fast; weights, their updates and the loss stay in fp32."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=fast_bf16(device))


def peak_memory(device: torch.device) -> int:
    """Bytes: the device's allocator's peak on CUDA, else the process's largest resident set."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak * (1 if sys.platform == "darwin" else 1024)


def memory(device: torch.device) -> int:
    """Bytes that a run may hope for: what CUDA has free, else all that the machine has."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


@contextmanager
def within_memory(device: torch.device, remedy: str) -> Iterator[None]:
    """Whatever the device says when its memory is full becomes one sentence, which ends in the remedy."""
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
        full = isinstance(error, torch.OutOfMemoryError | MemoryError) or "can't allocate memory" in str(error)
        if not full:
            raise
        raise UserError(f"the memory of {describe(device)} is full: {remedy}") from error


def keep_freed_memory() -> None:
    """Tell glibc to keep freed memory for the next step: asking the system again makes a step on a CPU slower.

    For the whole process. Other C libraries and operating systems are left as they are.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        mallopt(-1, 2**31 - 1)  # M_TRIM_THRESHOLD: how much free memory is kept, bytes
        mallopt(-3, 32 * 2**20)  # M_MMAP_THRESHOLD: the largest block that is kept; glibc allows no more
