"""What the machine can do at most, measured: multiplying matrices, copying memory; and how busy it is."""

import ctypes
import os
import re
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch

from scanet.device import processor, reset_peak_memory


def synchronize(device: torch.device) -> None:
    if device.type != "cpu":
        getattr(torch, device.type).synchronize()


def clock(device: torch.device) -> str:
    """What `seconds` reads: "processor" where one thread does everything, else "wall".

    The processor's time of one thread is what the wall's would be on a machine with nothing else to do; several
    threads wait for each other, and a GPU works beside the processor.
    """
    return "processor" if device.type == "cpu" and torch.get_num_threads() == 1 else "wall"


def seconds(work: Callable[[], object], device: torch.device, *, wall: bool = False) -> float:
    """The time that `work` takes, until the device has done it, by the device's `clock`, or by the wall's."""
    now = time.process_time if clock(device) == "processor" and not wall else time.perf_counter
    synchronize(device)
    start = now()
    work()
    synchronize(device)
    return now() - start


def matrix_rate(device: torch.device, dtype: torch.dtype, repeats: int = 8) -> float:
    """Operations a second in the product of two square matrices, a multiply-add being two; the best of `repeats`."""
    n, times = (8192, 10) if device.type == "cuda" else (2048, 1)  # a GPU's start and end would count
    a, b = (torch.rand(n, n, device=device).to(dtype) for _ in range(2))
    return times * 2 * n**3 / min(seconds(lambda: [a @ b for _ in range(times)], device) for _ in range(repeats))


def bandwidth(device: torch.device, repeats: int = 8) -> float:
    """Bytes a second, read and written, in a copy that no cache holds; the best of `repeats`."""
    size, times = (2**30, 10) if device.type == "cuda" else (2**28, 1)
    source = torch.randint(256, (size,), dtype=torch.uint8, device=device)
    target = torch.empty_like(source)

    def work() -> None:
        for _ in range(times):
            target.copy_(source)

    return times * 2 * size / min(seconds(work, device) for _ in range(repeats))


def slug(device: torch.device) -> str:
    """The device as a folder's name."""
    cores = f"-{os.cpu_count()}-cores" if device.type == "cpu" else ""
    return re.sub(r"[^a-z0-9]+", "-", processor(device).lower()).strip("-") + cores


def load() -> float:
    """Processes that want to run, on average over the last minute: this one's threads count too."""
    return os.getloadavg()[0]


def peak_of(work: Callable[[], object], device: torch.device) -> int | None:
    """Bytes by which memory use rose while `work` ran; None where the system does not tell."""
    if device.type == "cuda":
        before = torch.cuda.memory_allocated(device)
        reset_peak_memory(device)
        work()
        return torch.cuda.max_memory_allocated(device) - before
    status = Path("/proc/self/status")
    if sys.platform != "linux" or device.type != "cpu":
        work()
        return None
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)  # give freed memory back, so that it is counted again
    if not reset_peak_memory(device):
        work()
        return None
    before = _kilobytes(status, "VmRSS")
    work()
    return (_kilobytes(status, "VmHWM") - before) * 1024


def _kilobytes(status: Path, field: str) -> int:
    found = re.search(rf"{field}:\s*(\d+) kB", status.read_text(encoding="utf-8"))
    assert found is not None
    return int(found[1])
