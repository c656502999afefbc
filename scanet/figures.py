"""Figures: data in, Axes out. Nothing here reads a file or knows a run."""

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from IPython.core.getipython import get_ipython
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter
from matplotlib_inline.backend_inline import set_matplotlib_formats

from scanet.colours import BLUE, GREEN, GREY, ORANGE, limb_colour
from scanet.inference import Example
from scanet.skeleton import Skeleton

STYLE: dict[str, Any] = {
    "figure.dpi": 110,
    "savefig.bbox": "tight",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.25,
    "font.size": 10,
    "svg.fonttype": "none",
}


def use_style() -> None:
    """One visual language for all pages; vector graphics in notebooks."""
    plt.rcParams.update(STYLE)
    if get_ipython() is not None:
        set_matplotlib_formats("svg")


def training_curves(history: pd.DataFrame, axes: Sequence[Axes] | None = None) -> Sequence[Axes]:
    """Validation PCKh and training loss by epoch; dotted where the learning rate drops.

    history: a row an epoch with epoch, pckh (percent), loss and learning_rate.
    """
    if axes is None:
        axes = plt.subplots(1, 2, figsize=(9, 3.2), layout="constrained")[1]
    scores, losses = axes = tuple(axes)
    sns.lineplot(history, x="epoch", y="pckh", color=BLUE, marker="o", ax=scores)
    scores.set(xlabel="epoch", ylabel="validation PCKh@0.5, plain mean (%)", ylim=(0, None))
    sns.lineplot(history, x="epoch", y="loss", color=ORANGE, marker="o", ax=losses)
    losses.set(xlabel="epoch", ylabel="training loss", yscale="log")
    drops = history["epoch"][history["learning_rate"].diff() < 0]
    for ax in axes:
        for epoch in drops:
            ax.axvline(epoch - 0.5, color=GREY, linewidth=1, linestyle=":")
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    return axes


def pose(
    image: np.ndarray, joints: np.ndarray, skeleton: Skeleton, ax: Axes, *, truth: np.ndarray | None = None
) -> Axes:
    """A picture (s, s, 3) with a skeleton: left limbs blue, right limbs orange; the truth in white beneath.

    joints, truth: (j, 2) edge coordinates in the picture; limbs with a NaN end are left out.
    """
    ax.imshow(image.clip(0, 1), extent=(0, image.shape[1], image.shape[0], 0))
    for first, second in skeleton.limbs:
        ends = skeleton.index(first, second)
        if truth is not None:
            ax.plot(*truth[ends].T, color="white", linewidth=3.5, alpha=0.6, solid_capstyle="round")
        ax.plot(*joints[ends].T, color=limb_colour((first, second)), linewidth=2, solid_capstyle="round")
    return _bare(ax, image)


def attention(image: np.ndarray, weights: np.ndarray, ax: Axes) -> Axes:
    """A spatial attention map (h, w) over its grey picture (s, s, 3): yellow is the map's highest value."""
    height, width = image.shape[:2]
    ax.imshow(image.mean(axis=2), cmap="gray", vmin=0, vmax=1, extent=(0, width, height, 0))
    ax.imshow(weights, cmap="viridis", alpha=0.65, extent=(0, width, height, 0), interpolation="nearest")
    return _bare(ax, image)


def _bare(ax: Axes, image: np.ndarray) -> Axes:
    ax.set(xlim=(0, image.shape[1]), ylim=(image.shape[0], 0), xticks=[], yticks=[])
    ax.grid(visible=False)
    ax.spines[:].set_visible(False)
    return ax


def gallery(examples: Sequence[Example], skeleton: Skeleton) -> Figure:
    """A column for each example: the prediction over the truth, then the attention map of each stack."""
    stacks = max((len(example.attention) for example in examples), default=0)
    figure, grid = plt.subplots(
        1 + stacks,
        len(examples),
        figsize=(2 * len(examples), 2.15 * (1 + stacks)),
        squeeze=False,
        layout="constrained",
    )
    for column, example in zip(grid.T, examples, strict=True):
        pose(example.image, example.joints, skeleton, column[0], truth=example.truth)
        title = {0.0: "the best", 1.0: "the worst"}.get(example.rank, f"rank {100 * example.rank:.0f} of 100")
        column[0].set_title(title, fontsize=9)
        for stack, weights in enumerate(example.attention):
            ax = attention(example.image, weights, column[1 + stack])
            ax.set_title(f"stack {stack + 1}: {weights.min():.3g} to {weights.max():.3g}", fontsize=8)
    return figure


def accuracy_by_parameters(table: pd.DataFrame) -> Figure:
    """`tables.table1` as points: the paper's, on MPII's test set, and ours, on other persons, each in its own panel.

    The paper's lie at the parameters that it prints, ours at those counted. Methods without the number are left out.
    """
    paper = table.index.get_level_values("Scored on") == "MPII test"
    figure, axes = plt.subplots(1, 2, figsize=(10.5, 3.6), layout="constrained")
    figure.get_layout_engine().set(wspace=0.1)  # for the labels between the panels
    for ax, lines, column, colour, whose in (
        (axes[0], table[paper], "printed", GREY, "the paper's Table 1"),
        (axes[1], table[~paper], "counted", BLUE, "this book"),
    ):
        known = lines[lines[column].notna()].sort_values("Mean")
        ax.plot(known[column], known["Mean"], "o", color=colour)
        scored_on = ", ".join(known.index.unique("Scored on"))
        ax.set_title(f"{whose}: {scored_on}", fontsize=10)
        ax.set(xlabel=f"parameters, {column} (millions)", ylabel="mean PCKh@0.5, official (%)")
        ax.margins(0.12, 0.15)
        _label(ax, known[column].tolist(), known["Mean"].tolist(), list(known.index.get_level_values("Method")))
    return figure


def _label(ax: Axes, x: Sequence[float], y: Sequence[float], texts: Sequence[str]) -> None:
    """Texts right of the axes, at their points' heights (in ascending order) or above, none on another."""
    low, high = ax.get_ylim()
    step, below = (high - low) * 0.075, -np.inf
    for right, up, text in zip(x, y, texts, strict=True):
        below = max(up, below + step)
        ax.annotate(
            text,
            (right, up),
            (1.03, below),
            textcoords=ax.get_yaxis_transform(),
            fontsize=8,
            verticalalignment="center",
            annotation_clip=False,
            arrowprops={"arrowstyle": "-", "color": GREY, "linewidth": 0.6, "shrinkA": 0, "shrinkB": 4},
        )


def differences(table: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Differences of mean PCKh with their intervals on one axis (points): the paper's, and ours for each preset.

    table: index (comparison, source), from top to bottom, the source being "printed" or a preset; columns value, half
    (of the interval; NaN for none) and seeds. With one seed the interval is that of the persons alone: thin and open.
    """
    names, sources = (list(table.index.unique(level)) for level in (0, 1))
    sources = sorted(sources, key=lambda source: source != "printed")
    if ax is None:
        height = 0.9 + len(names) * (0.2 + 0.13 * len(sources))
        ax = plt.subplots(figsize=(6, height), layout="constrained")[1]
    ax.axvline(0, color="black", linewidth=0.8)
    for k, (source, colour) in enumerate(zip(sources, [GREY, BLUE, ORANGE, GREEN], strict=False)):
        rows = table.xs(source, level=1).reindex(names)
        y = -np.arange(len(names)) - 0.7 * ((k + 0.5) / len(sources) - 0.5)
        if source == "printed":
            ax.plot(rows["value"], y, "D", color=colour, markersize=5, label="paper, MPII")
            continue
        several, known = (rows["seeds"] > 1).to_numpy(), rows["value"].notna().to_numpy()
        for some, label, width, face in (
            (known & several, f"ours, {source}", 2.0, colour),
            (known & ~several, f"ours, {source}: one seed, persons alone", 1.0, "white"),
        ):
            if some.any():
                ax.errorbar(
                    rows["value"][some], y[some], xerr=rows["half"][some], fmt="o", color=colour, label=label,
                    elinewidth=width, markersize=5, markerfacecolor=face,
                )  # fmt: skip
    ax.set(xlabel="difference of mean PCKh@0.5 (points)", yticks=-np.arange(len(names)), yticklabels=names)
    ax.set_ylim(-len(names) + 0.4, 0.6)
    ax.grid(visible=False, axis="y")
    ax.legend(frameon=False, loc="lower center", bbox_to_anchor=(0.4, 1), ncols=2, fontsize=9)
    return ax


def roofline(
    stages: pd.DataFrame, matrix: Mapping[str, float], bandwidth: float, axes: Sequence[Axes] | None = None
) -> Sequence[Axes]:
    """A training step against the machine's limits: as a roofline, and the time of each kind of operations.

    stages: of `scanet.bench.report.roofline`, a row a kind with flops, bytes, limit and seconds, for one image.
    matrix: measured operations a second by number format, 0 where it has none. bandwidth: measured bytes a second.
    """
    if axes is None:
        axes = plt.subplots(1, 2, figsize=(10, 3.6), layout="constrained")[1]
    roof, times = axes = tuple(axes)
    intensity = np.logspace(0, 4, 200)
    for (name, rate), style in zip(matrix.items(), (":", "-"), strict=False):
        if rate:
            limit = np.minimum(rate, intensity * bandwidth)
            roof.plot(intensity, limit / 1e9, color="black", linestyle=style, linewidth=1.2, label=f"limit, {name}")
    total = stages[["flops", "bytes", "seconds"]].sum()
    points = {"convolutions": (stages.loc["convolution"], BLUE, "o"), "the whole step": (total, ORANGE, "s")}
    for name, (at, colour, marker) in points.items():
        roof.plot(at["flops"] / at["bytes"], at["flops"] / at["seconds"] / 1e9, marker, color=colour, label=name)
    roof.set(xscale="log", yscale="log", xlabel="operations a byte", ylabel="GFLOP/s")
    roof.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    roof.yaxis.set_major_formatter("{x:g}")
    roof.yaxis.set_minor_formatter(NullFormatter())
    roof.legend(frameon=False)
    y = -np.arange(len(stages))
    times.barh(y + 0.2, 1000 * stages["seconds"], 0.36, color=BLUE, label="as it was")
    times.barh(y - 0.2, 1000 * stages["limit"], 0.36, color=GREY, label="at the limit")
    times.set(yticks=y, yticklabels=list(stages.index), xlabel="milliseconds an image")
    times.grid(visible=False, axis="y")
    times.legend(frameon=False)
    return axes
