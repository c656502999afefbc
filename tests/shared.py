"""Where the real data are for the tests that need them: SCANET_SHARED, or beside the checkout."""

import os
from pathlib import Path

import pytest

_FOLDER = Path(os.environ.get("SCANET_SHARED") or Path(__file__).resolve().parents[2] / "shared" / "data")

MPII, LSPET = _FOLDER / "mpii", _FOLDER / "lspet"
_REMEDY = "set SCANET_SHARED to the folder above"
needs_mpii = pytest.mark.skipif(not MPII.is_dir(), reason=f"no MPII files: {_REMEDY} mpii/")
needs_lspet = pytest.mark.skipif(not LSPET.is_dir(), reason=f"no LSP Extended: {_REMEDY} lspet/")
