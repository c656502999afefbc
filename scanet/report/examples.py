"""Validation persons as pictures, chosen by rule, with their joints and attention maps."""

import numpy as np
import torch

from scanet.data.loader import Persons
from scanet.data.transforms import GREY, to_input
from scanet.inference import varied
from scanet.report.pictures import PICTURE, Example
from scanet.runs import Run


def normalised_errors(run: Run) -> np.ndarray:
    """Each validation person's mean distance from the annotation, in head sizes; NaN with under half the joints."""
    found = run.record.predictions()
    distance = np.linalg.norm(found["joints"] - found["truth"], axis=2) / found["head_size"][:, None]
    known = np.isfinite(distance).sum(axis=1) >= distance.shape[1] // 2
    distance[~known] = np.nan
    return np.array([np.nanmean(row) if k else np.nan for row, k in zip(distance, known, strict=True)])


def leg_to_head(run: Run) -> np.ndarray:
    """Each validation person's lower legs in head sizes, as annotated: large where the legs are near the camera."""
    found, skeleton = run.record.predictions(), run.record.skeleton
    lengths = [
        np.linalg.norm(
            np.diff(found["truth"][:, list(skeleton.index(f"{side}-knee", f"{side}-ankle"))], axis=1)[:, 0], axis=1
        )
        for side in "lr"
    ]
    return np.mean(lengths, axis=0) / found["head_size"]


@torch.inference_mode()
def examples(
    run: Run, count: int = 6, *, by: np.ndarray | None = None, between: tuple[float, float] = (0.0, 1.0),
    tau: float | None = None, noisy: bool = False,
) -> list[Example]:  # fmt: skip
    """Validation persons at evenly spaced ranks of a number, from the lowest to the highest.

    The rule takes the choice out of anybody's hands. Empty where the photographs are not on this machine, or nobody
    has such a number.

    Args:
        by: the number for each validation person, NaN to leave one out; None: `normalised_errors`, the best first.
        between: the first and the last rank, of 0 to 1.
        tau: of the attention maps; None: the network's own. noisy: one draw of Gumbel noise in them.
    """
    by = normalised_errors(run) if by is None else by
    if run.store is None or not np.isfinite(by).any():
        return []
    found = run.record.predictions()
    order = np.argsort(by)[: np.isfinite(by).sum()]  # NaN comes last
    ranks = np.linspace(*between, count)
    chosen = order[np.round(ranks * (len(order) - 1)).astype(int)]
    persons = Persons(run.store, found["row"][chosen], torch.device("cpu"))
    index = torch.arange(count)
    squares = next(persons.squares([index]))
    size = run.record.settings["input_size"]
    images, matrix = persons.images(squares, index, PICTURE)

    def place(joints: np.ndarray) -> np.ndarray:
        points = torch.as_tensor(joints[chosen], dtype=torch.float32)
        return to_input(points, persons.center, persons.zoom, matrix, PICTURE).numpy()

    pictures = (images + GREY).permute(0, 2, 3, 1).numpy()
    maps: list[np.ndarray] = []
    if run.model is not None and run.settings.row.attention != "none":
        source = torch.Generator().manual_seed(run.settings.seed)
        noise = run.model.draw_noise(count, size, source) if noisy else None
        model = run.model if tau is None else varied(run.model, tau=tau)
        outs = model(persons.images(squares, index, size)[0], noise)[1]
        maps = [out["attention"][:, 0].float().numpy() for out in outs]
    joints, truth = place(found["joints"]), place(found["truth"])
    return [
        Example(
            pictures[i],
            joints[i],
            truth[i],
            [m[i] for m in maps],
            float(ranks[i]),
            float(by[chosen[i]]),
        )
        for i in range(count)
    ]


def with_and_without_noise(run: Run, tau: float) -> list[Example]:
    """Two persons, at ranks 33 and 67 of 100: each with the noise-free map at a temperature, and with one draw."""
    both = [examples(run, 2, between=(0.33, 0.67), tau=tau, noisy=noisy) for noisy in (False, True)]
    return [example for pair in zip(*both, strict=True) for example in pair]
