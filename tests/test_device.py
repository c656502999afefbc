"""The processor's choice and what is asked of the system's memory."""

import platform
import subprocess
import sys

import pytest

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
