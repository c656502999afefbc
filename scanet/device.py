"""Which processor, and which number format it is fast in."""

import ctypes
import os
import platform
import re
import resource
import sys
import traceback
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import torch

from scanet.files import UserError


def pick_device(name: str | None = None) -> torch.device:
    """The device of that name (cuda, mps, cpu), by default the best there is; of several GPUs the launcher's.

    Raises UserError if it is not there, or if a launcher started more processes than there are GPUs.
    """
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    found = [device for device, available in there.items() if available]
    if name is not None and name not in found:
        raise UserError(f"this torch finds no device {name!r} on this machine: choose one of {', '.join(found)}")
    if (name or found[0]) == "cuda":
        number, gpus = int(os.environ.get("LOCAL_RANK", "0")), torch.cuda.device_count()
        if number >= gpus:
            raise UserError(
                f"this is process {number} of this machine, counted from 0, and it has {gpus} GPU{'s' * (gpus > 1)}: "
                "start no more processes than GPUs, or set CUDA_VISIBLE_DEVICES to nothing for the CPU"
            )
        torch.cuda.set_device(number)
    return torch.device(name or found[0])


def processor(device: torch.device) -> str:
    """The processor's name, as its maker calls it."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    info = Path("/proc/cpuinfo")
    found = re.search(r"model name\s*: (.*)", info.read_text(encoding="utf-8")) if info.exists() else None
    return found[1].strip() if found else platform.processor() or platform.machine()


def describe(device: torch.device, *, compiled: bool = False) -> str:
    """For the first line of output and for run records: the device, its processor and threads, its number format.

    compiled: whether torch.compile makes its training steps.
    """
    name = processor(device) if device.type == "cuda" else f"{device.type} ({processor(device)})"
    count = torch.get_num_threads()
    threads = f", {count} thread{'s' * (count > 1)}" if device.type == "cpu" else ""
    return f"{name}{threads}, {'bf16' if fast_bf16(device) else 'fp32'}" + ", compiled" * compiled


def fast_bf16(device: torch.device) -> bool:
    """Whether the processor has bf16 instructions for convolutions."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type != "cpu" or not torch.backends.mkldnn.is_available():  # whose operators some builds lack
        return False
    if not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        return False
    # On x86 that holds for AVX-512 alone, which has to emulate bf16: slower than fp32.
    x86 = platform.machine().lower() in ("x86_64", "amd64")
    return not x86 or torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()


def autocast(device: torch.device) -> AbstractContextManager[None]:
    """bf16 for convolutions where that is fast; weights, their updates and the loss stay in fp32."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=fast_bf16(device))


def reset_peak_memory(device: torch.device) -> bool:
    """Let `peak_memory` begin anew; False where the system cannot, and it stays the process's since its start."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return True
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")
    except OSError:
        return False
    return True


def peak_memory(device: torch.device) -> int:
    """Bytes: the device's allocator's peak on CUDA, else the process's largest resident set."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak * (1 if sys.platform == "darwin" else 1024)


def free_memory(device: torch.device) -> int:
    """Bytes that the device has free; on the CPU what the operating system calls available, within a job's limit."""
    if device.type == "cuda":  # what PyTorch's allocator keeps of an earlier run is not the driver's, and is free
        kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + kept
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        available = 1024 * next(int(line.split()[1]) for line in lines if line.startswith("MemAvailable:"))
        return min(available, job_memory()[1])
    except (OSError, StopIteration):  # not on this operating system
        return 4 * 2**30


def memory(device: torch.device) -> int:
    """Bytes that a run may hope for: what CUDA has free, else all that the machine has, or that a job may take of it.

    What the machine has free would be too little: `keep_freed_memory` keeps an earlier run's. Of several processes on
    a CPU each may hope for its share.
    """
    if device.type == "cuda":
        return free_memory(device)
    return min(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"), job_memory()[0]) // sharing(device)


def cores() -> int:
    """Processor cores that this process may run on, as the system, a job or the user has bound it."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def launched() -> int:
    """How many processes a launcher started on this machine; 1 without one."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


def sharing(device: torch.device) -> int:
    """How many processes share the device's memory: those that a launcher started on this machine's CPU."""
    return launched() if device.type == "cpu" else 1


def job_memory(root: Path = Path("/")) -> tuple[int, int]:
    """Bytes that Linux lets this process's control group take, a Slurm job's or a container's, and those still free.

    Of the group and of those it lies in, the smallest; `sys.maxsize` where there is no limit. What is kept of files
    and can be dropped is free. root: of the file system, for the tests.
    """
    most = free = sys.maxsize
    try:
        groups = [line.split(":", 2) for line in (root / "proc/self/cgroup").read_text(encoding="ascii").splitlines()]
    except OSError:  # not on this operating system
        return most, free
    for _, controllers, path in groups:
        if not controllers:  # version 2
            top, limit, usage = root / "sys/fs/cgroup", "memory.max", "memory.current"
        elif "memory" in controllers.split(","):
            top, limit, usage = root / "sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes"
        else:
            continue
        group = top / path.lstrip("/")
        for folder in (group, *group.parents):
            if not folder.is_relative_to(top) or not (folder / limit).is_file():
                continue
            allowed = (folder / limit).read_text(encoding="ascii").strip()
            if allowed.isdigit():  # else "max": no limit
                used = int((folder / usage).read_text(encoding="ascii"))
                lines = (folder / "memory.stat").read_text(encoding="ascii").splitlines()
                kept = sum(int(line.split()[1]) for line in lines if line.startswith("inactive_file "))
                most = min(most, int(allowed))
                free = min(free, max(0, int(allowed) - used + kept))
    return most, free


#: What libraries say in a RuntimeError: oneDNN, CUDA, cuBLAS and older versions of cuDNN, cuDNN from 9 on.
_FULL = ("can't allocate memory", "out of memory", "ALLOC_FAILED", "ALLOCATION_FAILED")
#: What PyTorch says where every one of cuDNN's ways failed: on a full device because none had its workspace.
_NO_ENGINE, _NEARLY_FULL = "unable to find an engine", 2**30


def memory_is_full(error: Exception) -> bool:
    """Whether that is what the error says."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or any(words in str(error) for words in _FULL)


@contextmanager
def within_memory(device: torch.device, remedy: str) -> Iterator[None]:
    """Whatever the device says when its memory is full becomes one sentence, which ends in the remedy."""
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
        if not memory_is_full(error) and not (_NO_ENGINE in str(error) and free_memory(device) < _NEARLY_FULL):
            raise
        # A notebook keeps the last error and, by the frames that were called, all that was in memory: the next try
        # would find it full.
        traceback.clear_frames(error.__traceback__)
        if device.type == "cuda":
            torch.cuda.empty_cache()
        raise UserError(f"the memory of {describe(device)} is full: {remedy}") from error


def keep_freed_memory() -> None:
    """Tell glibc to keep freed memory for the next step: asking the system again makes a step on a CPU slower.

    For the whole process. Other C libraries and operating systems are left as they are.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        mallopt(-1, 2**31 - 1)  # M_TRIM_THRESHOLD: how much free memory is kept, bytes
        mallopt(-3, 32 * 2**20)  # M_MMAP_THRESHOLD: the largest block that is kept; glibc allows no more
