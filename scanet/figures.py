"""Figures: data in, Axes out. Nothing here reads a file or knows a run."""

from collections.abc import Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from IPython.core.getipython import get_ipython
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from matplotlib_inline.backend_inline import set_matplotlib_formats

from scanet.config import ROWS
from scanet.inference import Example, View
from scanet.skeleton import Skeleton

# Okabe and Ito's colours can be told apart by colour-blind readers.
BLUE, ORANGE, GREEN, GREY = "#0072B2", "#D55E00", "#009E73", "#777777"
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
    sides: dict[str, list[list[int]]] = {}
    for first, second in skeleton.limbs:
        side = {"l": BLUE, "r": ORANGE}.get(first[0] if first[1] == "-" else "", GREEN)
        sides.setdefault(side, []).append(skeleton.index(first, second))
    if truth is not None:
        limbs = [ends for limbs in sides.values() for ends in limbs]
        ax.plot(*_broken(truth, limbs), color="white", linewidth=3.5, alpha=0.6, solid_capstyle="round")
    for side, limbs in sides.items():
        ax.plot(*_broken(joints, limbs), color=side, linewidth=2, solid_capstyle="round")
    return _bare(ax, image)


def attention(
    image: np.ndarray, weights: np.ndarray, ax: Axes, *, limits: tuple[float | None, float | None] = (None, None)
) -> Axes:
    """A spatial attention map (h, w) over its grey picture (s, s, 3), from blue to yellow.

    limits: the values that are all blue and all yellow; by default the map's lowest and highest.
    """
    height, width = image.shape[:2]
    ax.imshow(image.mean(axis=2), cmap="gray", vmin=0, vmax=1, extent=(0, width, height, 0))
    low, high = limits
    extent = (0, width, height, 0)
    ax.imshow(weights, cmap="viridis", alpha=0.65, vmin=low, vmax=high, extent=extent, interpolation="nearest")
    return _bare(ax, image)


def _broken(joints: np.ndarray, limbs: list[list[int]]) -> np.ndarray:
    """All limbs as one line (2, n) with gaps: a line for each would take most of a figure's time."""
    return np.pad(joints[limbs], ((0, 0), (0, 1), (0, 0)), constant_values=np.nan).reshape(-1, 2).T


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


def explorer(view: View, skeleton: Skeleton, figure: Figure | None = None) -> Figure:
    """The skeleton, the heat map and the attention of one picture; beneath, the same with noise in the attention.

    Maps of sharper attention are coloured from 0 to 1, all others from their lowest to their highest value.
    """
    looks = {"without noise": view.quiet} | ({"with noise": view.noisy} if view.noisy else {})
    columns = 2 if view.quiet.attention is None else 3
    figure = figure or plt.figure()
    figure.set_size_inches(2.5 * columns, 2.75 * len(looks))
    # Places by hand: to find them would take half of the explorer's time.
    top = 0.91 if len(looks) == 1 else 0.95
    places = {"left": 0, "right": 1, "bottom": 0, "top": top, "wspace": 0.03, "hspace": 0.1}
    grid = figure.subplots(len(looks), columns, squeeze=False, gridspec_kw=places)
    for line, (title, one) in zip(grid, looks.items(), strict=True):
        pose(view.image, one.joints, skeleton, line[0], truth=view.truth).set_title(title, fontsize=9)
        attention(view.image, one.heatmap, line[1])
        line[1].set_title(f"heat map: {one.heatmap.min():.2g} to {one.heatmap.max():.2g}", fontsize=9)
        if one.attention is not None:
            attention(view.image, one.attention, line[2], limits=(0, 1) if view.noisy else (None, None))
            line[2].set_title(f"attention: {one.attention.min():.2g} to {one.attention.max():.2g}", fontsize=9)
    return figure


def small_multiples(table: pd.DataFrame, y: str, label: str, *, background: pd.DataFrame | None = None) -> np.ndarray:
    """A row of panels for each `module` of the table, in it one for each `axis`: y against `value`, 0 to 1.

    Line: the mean over the seeds; shaded: from the lowest seed to the highest. background: rows of one more module,
    drawn in grey in every panel. Without it zero is marked. The panels of an axis share their scale.
    """
    axes, modules = table["axis"].unique(), table["module"].unique()
    figure = plt.figure(figsize=(2.6 * len(axes) + 0.6, 1.35 * len(modules) + 0.5), layout="constrained")
    grid: np.ndarray = figure.subplots(len(modules), len(axes), sharex=True, sharey="col", squeeze=False)
    for line, module in zip(grid, modules, strict=True):
        for ax, axis in zip(line, axes, strict=True):
            layers = [(table[table["module"] == module], BLUE)]
            if background is None:
                ax.axhline(0, color="black", linewidth=0.8)
            else:
                layers.insert(0, (background, GREY))
            for rows, colour in layers:
                here = rows[rows["axis"] == axis]
                sns.lineplot(
                    here, x="value", y=y, color=colour, errorbar=("pi", 100), marker="o", markersize=4, ax=ax
                )
            ax.set(xlabel=axis.replace("_", " "), ylabel="", xticks=[0, 0.5, 1], xticklabels=["0", "½", "1"])
        line[0].set_title(ROWS[module].title, fontsize=9, loc="left")
    figure.supylabel(label, fontsize=10)
    return grid


def specification_curve(
    effects: pd.DataFrame, readings: Sequence[str], label: str, axes: Sequence[Axes] | None = None
) -> Sequence[Axes]:
    """Sorted effects, and beneath each the readings that were taken for it; the one without any is orange.

    effects: a row a specification, in the order to show: effect, low and high (points), and for each of `readings`
    whether it was taken. Thin lines go from low to high.
    """
    if axes is None:
        figure = plt.figure(figsize=(8, 3 + 0.22 * len(readings)), layout="constrained")
        ratios = [2.6, 0.22 * len(readings)]
        axes = figure.subplots(2, 1, sharex=True, gridspec_kw={"height_ratios": ratios})
    curve, dashboard = axes = tuple(axes)
    taken = effects[list(readings)].to_numpy(bool)
    colours = [BLUE if line.any() else ORANGE for line in taken]
    x = np.arange(len(effects))
    curve.vlines(x, effects["low"], effects["high"], colors=colours, linewidth=1)
    curve.scatter(x, effects["effect"], c=colours, s=22, zorder=3)
    curve.axhline(0, color="black", linewidth=0.8)
    curve.set_ylabel(label)
    for row in range(len(readings)):
        dashboard.axhline(row, color=GREY, linewidth=0.4, alpha=0.4)
    columns, rows = np.nonzero(taken)
    dashboard.scatter(columns, rows, color=BLUE, s=14, marker="s")
    dashboard.set(yticks=range(len(readings)), yticklabels=readings, xticks=[], ylim=(len(readings) - 0.5, -0.5))
    dashboard.set_xlabel("specifications, smallest effect first")
    for ax in axes:
        ax.grid(visible=False)
    dashboard.spines[:].set_visible(False)
    dashboard.tick_params(length=0, labelsize=8)
    return axes


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
