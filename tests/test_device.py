"""The processor's choice and what is asked of the system's memory."""

import os
import platform
import subprocess
import sys
import weakref
from pathlib import Path

import numpy as np
import pytest
import torch

from scanet.device import (
    autocast,
    cores,
    describe,
    free_memory,
    job_memory,
    memory,
    peak_memory,
    pick_device,
    processor,
    reset_peak_memory,
    within_memory,
)
from scanet.files import UserError

CPU = torch.device("cpu")

RESIDENT = """
import numpy, sys
import scanet.device

def pages():
    return int(open("/proc/self/statm").read().split()[1])

if sys.argv[1] == "keep":
    scanet.device.keep_freed_memory()
before = pages()
block = numpy.ones(20 * 2**20, numpy.uint8)
held = pages()
del block
print((pages() - before) / (held - before))
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc's setting")
@pytest.mark.parametrize(("mode", "share"), [("keep", 1.0), ("leave", 0.0)])
def test_freed_memory_is_kept(mode: str, share: float) -> None:
    """Share of a freed block of 20 MiB that still belongs to the process."""
    found = subprocess.run([sys.executable, "-c", RESIDENT, mode], capture_output=True, text=True, check=True)
    assert float(found.stdout) == pytest.approx(share, abs=0.05)


def test_free_memory_has_a_size_everywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*_: object, **__: object) -> None:
        raise FileNotFoundError

    assert free_memory(CPU) > 2**20
    monkeypatch.setattr("pathlib.Path.read_text", unknown)
    assert free_memory(CPU) == 4 * 2**30


def test_what_an_earlier_run_has_freed_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    """On CUDA: of 100 bytes others have 20; this process holds 70 and uses 30 of them."""
    monkeypatch.setattr("torch.cuda.mem_get_info", lambda _: (10, 100))
    monkeypatch.setattr("torch.cuda.memory_reserved", lambda _: 70)
    monkeypatch.setattr("torch.cuda.memory_allocated", lambda _: 30)
    assert free_memory(torch.device("cuda")) == memory(torch.device("cuda")) == 50


@pytest.mark.parametrize(
    ("machine", "instructions", "expected"),
    [("x86_64", ["avx512"], False), ("x86_64", ["avx512", "bf16"], True), ("AMD64", ["avx512", "amx"], True),
     ("x86_64", [], False), ("aarch64", ["avx512"], True)],
)  # fmt: skip
def test_bf16_is_used_where_the_processor_has_it(
    machine: str, instructions: list[str], expected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """oneDNN says yes on AVX-512 alone too, where bf16 is emulated; "avx512" stands for its yes."""
    monkeypatch.setattr("platform.machine", lambda: machine)
    monkeypatch.setattr("torch.ops.mkldnn._is_mkldnn_bf16_supported", lambda: "avx512" in instructions)
    monkeypatch.setattr("torch.cpu._is_avx512_bf16_supported", lambda: "bf16" in instructions)
    monkeypatch.setattr("torch.cpu._is_amx_tile_supported", lambda: "amx" in instructions)
    with autocast(CPU):
        found = torch.nn.functional.conv2d(torch.ones(1, 1, 2, 2), torch.ones(1, 1, 1, 1)).dtype
    assert found == (torch.bfloat16 if expected else torch.float32)
    assert ("bf16" in describe(CPU)) == expected


V1 = "memory/job/memory."


@pytest.mark.parametrize(
    ("group", "files", "most", "free"),
    [
        ("0::/job/step\n", {"job/memory.max": "8000", "job/memory.current": "3000", "job/step/memory.max": "max"},
         8000, 5200),
        ("0::/job/step\n", {"job/memory.max": "8000", "job/memory.current": "7000", "job/step/memory.max": "5000\n",
         "job/step/memory.current": "400"}, 5000, 1200),
        ("4:cpu:/x\n3:memory,hugetlb:/job\n", {f"{V1}limit_in_bytes": "700", f"{V1}usage_in_bytes": "990"}, 700, 0),
        ("0::/job\n", {}, sys.maxsize, sys.maxsize),
        ("", {"memory.max": "1"}, sys.maxsize, sys.maxsize),
    ],
)  # fmt: skip
def test_a_job_has_no_more_memory_than_its_groups(
    group: str, files: dict[str, str], most: int, free: int, tmp_path: Path
) -> None:
    """200 bytes of what each uses are kept of files."""
    assert job_memory(tmp_path) == (sys.maxsize, sys.maxsize)
    stats = {f"{name.rpartition('/')[0]}/memory.stat": "anon 5\ninactive_file 200\nfile 9\n" for name in files}
    there = {f"sys/fs/cgroup/{name}": text for name, text in {**files, **stats}.items()}
    for name, text in {"proc/self/cgroup": group, **there}.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    assert job_memory(tmp_path) == (most, free)


def test_memory_is_what_the_job_has(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("scanet.device.job_memory", lambda: (1000, 300))
    assert (memory(CPU), free_memory(CPU)) == (1000, 300)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")  # processes that share it
    assert memory(CPU) == 250


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB"),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes"),
        RuntimeError("CUDA error: out of memory"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
        RuntimeError("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED"),
    ],
    ids=str,
)
def test_full_memory_is_told_in_a_sentence(error: Exception) -> None:
    with pytest.raises(UserError, match=r"^the memory of cpu.* is full: give less$"), within_memory(CPU, "give less"):
        raise error


@pytest.mark.skipif(not Path("/proc/cpuinfo").exists(), reason="reads Linux's /proc")
def test_a_record_names_the_processor() -> None:
    """A run made again on another kind of processor is another draw."""
    assert processor(CPU) in describe(CPU)
    assert processor(CPU) in Path("/proc/cpuinfo").read_text() + platform.machine()


@pytest.mark.skipif(sys.platform != "linux", reason="reads Linux's /proc")
def test_a_peak_begins_anew() -> None:
    block = np.ones(2**26)
    before = peak_memory(CPU)
    del block
    if not reset_peak_memory(CPU):
        pytest.skip("this system does not allow it")
    assert peak_memory(CPU) < before - 2**28


def test_what_was_in_memory_does_not_stay_with_the_error() -> None:
    """The next try, in the same notebook, would find the memory as full."""

    class Persons:
        pass

    held: list[weakref.ref[Persons]] = []

    def train() -> None:
        people = Persons()
        held.append(weakref.ref(people))
        raise MemoryError

    with pytest.raises(UserError) as kept, within_memory(CPU, "give less"):
        train()
    assert kept.value.__cause__ is not None
    assert held[0]() is None


@pytest.mark.parametrize(("free", "what"), [(2**20, UserError), (2**34, RuntimeError)])
def test_no_engine_means_a_full_memory_where_little_is_free(
    free: int, what: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("scanet.device.free_memory", lambda _: free)
    with pytest.raises(what), within_memory(CPU, "give less"):
        raise RuntimeError("GET was unable to find an engine to execute this computation")


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="Linux's")
def test_cores_are_those_that_the_job_may_use() -> None:
    allowed = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, [min(allowed)])
        assert cores() == 1
    finally:
        os.sched_setaffinity(0, allowed)


def test_more_processes_than_gpus_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setenv("LOCAL_RANK", "1")
    with pytest.raises(
        UserError, match=r"process 1 of this machine, counted from 0, and it has 1 GPU: start no more"
    ):
        pick_device()


def test_other_errors_pass_as_they_are() -> None:
    error = RuntimeError("CUDA error: an illegal memory access was encountered")
    with pytest.raises(RuntimeError) as seen, within_memory(CPU, "give less"):
        raise error
    assert seen.value is error
