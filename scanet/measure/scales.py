"""PCKh of persons who are smaller or larger in the network's input than in training (§1, §3.3.1).

Nothing is trained for it: at testing the crop is so many times wider or narrower than the person's box. What lies
around the person is the photograph's.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch

from scanet.config import ROWS, Settings
from scanet.data.loader import Persons
from scanet.data.store import MARGIN, Store
from scanet.evaluation import scores
from scanet.inference import Predictions, predict
from scanet.model import SCANet
from scanet.pckh import CONVENTION

#: What the others are compared with.
REFERENCE = "Baseline"
#: Rows that can be.
MODULES = ("MSFI", *(name for name in ROWS if name not in (REFERENCE, "MSFI")))
#: How large a person appears, as a part of the size in testing, thirds of an octave apart; the smallest needs the
#: whole of what the store holds, and with the largest limbs begin to leave the picture.
SIZES = (0.5, 0.63, 0.8, 1.0, 1.25)
assert min(SIZES) * MARGIN >= 1
#: Parts of the persons, each left out once: what the choice of persons does to a difference follows from these.
FOLDS = 50


@dataclass(frozen=True)
class Dials:
    """persons: of the validation persons, at most so many, evenly spaced."""

    persons: int = 1000


def trained(settings: Settings) -> tuple[float, float]:
    """The smallest and the largest size in training."""
    return 1 / (1 + settings.scale_jitter), 1 / (1 - settings.scale_jitter)


def measure(model: SCANet, store: Store, rows: np.ndarray, size: int, device: torch.device) -> pd.DataFrame:
    """A line for each of `SIZES`: size; pckh, the plain mean (percent) of one forward pass a person; and the same
    "without 0", "without 1" and so on, one of `FOLDS` parts of the persons each time.

    Args:
        rows: the store's rows to test.
        size: the network's input, pixels.
    """
    model, persons = model.to(device), Persons(store, rows, device)
    fold = np.arange(len(rows)) % FOLDS
    lines = []
    for appears in SIZES:
        found = predict(model, persons, size=size, tta="none", boxes=1 / appears)

        def mean(some: np.ndarray, found: Predictions = found) -> float:
            part = Predictions(found.joints[some], found.heat[some])
            return scores(part, store, rows[some]).row(CONVENTION)["Mean"]

        without = {f"pckh without {k}": mean(fold != k) for k in range(fold.max() + 1)}
        lines.append({"size": appears, "pckh": mean(fold >= 0), **without})
    return pd.DataFrame(lines)
