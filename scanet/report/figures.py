"""Figures: data in, Axes out. Nothing here reads a file or knows a run."""

import sys
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, LogLocator, MaxNLocator, NullFormatter, NullLocator

from scanet.colours import BLUE, GREEN, GREY, ORANGE, PRESET_COLOURS, PURPLE, limb_colour
from scanet.config import ROWS
from scanet.errors import ANOTHER, ELSEWHERE, LIMB, MIRRORED, NEAR
from scanet.measure.gates import BAND, OWN
from scanet.measure.temperature import NOISE
from scanet.report.pictures import Example, View
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
    if "IPython" in sys.modules:  # which figures outside notebooks do not need
        from IPython.core.getipython import get_ipython
        from matplotlib_inline.backend_inline import set_matplotlib_formats

        if get_ipython() is not None:
            set_matplotlib_formats("svg")


def training_curves(history: pd.DataFrame, axes: Sequence[Axes] | None = None) -> Sequence[Axes]:
    """Validation PCKh and training loss by epoch; dotted where the learning rate drops at once (§3.1).

    history: a row an epoch with epoch, pckh (percent), loss and learning_rate.
    """
    if axes is None:
        axes = plt.subplots(1, 2, figsize=(9, 3.2), layout="constrained")[1]
    scores, losses = axes = tuple(axes)
    sns.lineplot(history, x="epoch", y="pckh", color=BLUE, marker="o", ax=scores)
    scores.set(xlabel="epoch", ylabel="validation PCKh@0.5, plain mean (%)", ylim=(0, None))
    sns.lineplot(history, x="epoch", y="loss", color=ORANGE, marker="o", ax=losses)
    losses.set(xlabel="epoch", ylabel="training loss", yscale="log")
    losses.yaxis.set(major_locator=MaxNLocator(6), major_formatter="{x:g}", minor_locator=NullLocator())
    rate = history["learning_rate"]
    drops = history["epoch"][rate < 0.2 * rate.shift()]  # to a tenth; a linear fall is at most to a half
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
        ends = skeleton.index(first, second)
        sides.setdefault(limb_colour((first, second)), []).append(ends)
    if truth is not None:
        limbs = [ends for limbs in sides.values() for ends in limbs]
        ax.plot(*_broken(truth, limbs), color="white", linewidth=3.5, alpha=0.6, solid_capstyle="round")
    for colour, limbs in sides.items():
        ax.plot(*_broken(joints, limbs), color=colour, linewidth=2, solid_capstyle="round")
    return _bare(ax, image)


def attention(
    image: np.ndarray, weights: np.ndarray, ax: Axes, *, limits: tuple[float | None, float | None] = (None, None)
) -> Axes:
    """A spatial attention map (h, w) over its grey picture (s, s, 3), from blue to yellow.

    limits: the values that are all blue and all yellow; by default the map's lowest and highest.
    """
    height, width = image.shape[:2]
    extent = (0, width, height, 0)
    ax.imshow(image.mean(axis=2), cmap="gray", vmin=0, vmax=1, extent=extent)
    low, high = limits
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
    if not examples:
        return _missing("the photographs")
    stacks = max(len(example.attention) for example in examples)
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


WIDTH = 4.8  # inches: letters of a figure this wide can be read on a phone


def poses(examples: Sequence[Example], skeleton: Skeleton, *, columns: int = 3) -> Figure:
    """Predictions over the truth, row by row, each with the value by which it is ranked, in head sizes."""
    if not examples:
        return _missing("the photographs")
    rows, side = -(-len(examples) // columns), WIDTH / columns
    figure, grid = plt.subplots(
        rows, columns, figsize=(WIDTH, (side + 0.2) * rows), squeeze=False, layout="constrained"
    )
    for ax in grid.flat[len(examples) :]:
        ax.remove()
    for ax, example in zip(grid.flat, examples, strict=False):
        pose(example.image, example.joints, skeleton, ax, truth=example.truth)
        ax.set_title(f"{example.value:.2f} heads", fontsize=10)
    return figure


def map_grid(
    examples: Mapping[str, Sequence[Example]],
    *,
    shared: bool,
    last: bool = False,
    titles: Sequence[str] | None = None,
) -> Figure:
    """A column for each example: its picture, and below it the attention maps of each label, a row a stack.

    Args:
        examples: for each label the same persons in the same order; a label whose weights are not there is left out.
        shared: one colour scale from 0 to 1 for all maps, with its bar; else each map is drawn from its lowest
            value to its highest, which stand above it.
        last: only the last stack.
        titles: of the columns; None: their ranks.
    """
    examples = {label: of for label, of in examples.items() if of and of[0].attention}
    if not examples:
        return _missing("the photographs or the weights")
    people = next(iter(examples.values()))
    stacks = [len(people[0].attention) - 1] if last else range(len(people[0].attention))
    rows = [
        (label if last else f"{label}, stack {stack + 1}", [example.attention[stack] for example in of])
        for label, of in examples.items()
        for stack in stacks
    ]
    side = WIDTH / (len(people) + 0.3)
    height = side * (1 + len(rows)) + (0.75 if shared else 0.2 * (1 + len(rows)))
    figure, grid = plt.subplots(
        1 + len(rows), len(people), figsize=(WIDTH, height), squeeze=False, layout="constrained"
    )
    figure.get_layout_engine().set(w_pad=0.02, h_pad=0.02, hspace=0.01, wspace=0.01)
    titles = titles or [f"rank {100 * example.rank:.0f} of 100" for example in people]
    for ax, example, title in zip(grid[0], people, titles, strict=True):
        ax.imshow(example.image.clip(0, 1), extent=(0, 1, 1, 0))
        ax.set_title(title, fontsize=9)
    scale = {"vmin": 0, "vmax": 1} if shared else {}
    for line, (label, maps) in zip(grid[1:], rows, strict=True):
        for ax, values in zip(line, maps, strict=True):
            drawn = ax.imshow(values, cmap="viridis", extent=(0, 1, 1, 0), interpolation="nearest", **scale)
            if not shared:
                ax.set_title(f"{values.min():.2g} to {values.max():.2g}", fontsize=9)
        line[0].set_ylabel(label, fontsize=9)
    for ax in grid.flat:
        ax.set(xticks=[], yticks=[])
        ax.grid(visible=False)
        ax.spines[:].set_visible(False)
    if shared:
        bar = figure.colorbar(drawn, ax=grid[-1].tolist(), location="bottom", shrink=0.8, aspect=40, pad=0.02)
        bar.set_label("attention")
    return figure


def _missing(what: str) -> Figure:
    """In the place of pictures: why there are none."""
    figure = plt.figure(figsize=(WIDTH, 0.5))
    why = f"no pictures: {what} are not on this machine, or nobody can be ranked"
    figure.text(0.5, 0.5, why, ha="center", va="center")
    return figure


def attention_curves(histories: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Validation PCKh by epoch, a curve for each row (Fig. 4), with a band from the lowest seed to the highest.

    histories: as `tables.histories` gives them.
    """
    if ax is None:
        ax = plt.subplots(figsize=(WIDTH, 3.6), layout="constrained")[1]
    methods = list(histories["Method"].unique())
    sns.lineplot(
        histories, x="epoch", y="pckh", hue="Method", style="Method", palette=[BLUE, ORANGE, GREY][: len(methods)],
        markers=True, errorbar=("pi", 100), ax=ax,
    )  # fmt: skip
    ax.set(xlabel="epoch", ylabel="validation PCKh@0.5 (%)", ylim=(0, None))
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.legend(frameon=False, title=None)
    return ax


def by_length(histories: pd.DataFrame) -> Figure:
    """Validation PCKh by epoch: a panel for each row, in it a curve for each length of training.

    histories: as `tables.histories` gives them. A ring is where a run ended: its learning rate had fallen by then, so
    the end of a short run lies above a long one's curve. Of several seeds the mean, and a band from the lowest to
    the highest.
    """
    methods = list(histories["Method"].unique())
    columns, lengths = min(2, len(methods)), sorted(histories["length"].unique())
    rows = -(-len(methods) // columns)
    figure = plt.figure(figsize=(WIDTH, 2.1 * rows + 0.5), layout="constrained")
    panels = list(figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).flat)
    colours = dict(zip(lengths, sns.color_palette("viridis_r", len(lengths) + 1)[1:], strict=True))
    for i, (ax, method) in enumerate(zip(panels, methods, strict=False)):
        runs = histories[histories["Method"] == method]
        sns.lineplot(
            runs, x="epoch", y="pckh", hue="length", palette=colours, errorbar=("pi", 100), legend=False, ax=ax
        )
        for length, ends in runs[runs["epoch"] == runs["length"]].groupby("length"):
            at = ends["pckh"].mean()
            ax.plot(length, at, "o", color=colours[length], markerfacecolor="white")
            ax.annotate(f"{at:.1f}", (length, at), (-4, 5), textcoords="offset points", fontsize=9, ha="right")
        ax.set(xlabel="", ylabel="", ylim=(0, None), xscale="log")
        ax.xaxis.set(major_locator=FixedLocator([1, *lengths]), major_formatter="{x:g}", minor_locator=NullLocator())
        ax.xaxis.set_tick_params(labelbottom=i + columns >= len(methods))
        ax.set_title(method, fontsize=10, loc="left")
    for ax in panels[len(methods) :]:
        ax.remove()
    figure.supxlabel("epoch", fontsize=10)
    figure.supylabel("validation PCKh@0.5, one pass (%)", fontsize=10)
    return figure


def _legend(ax: Axes) -> tuple[list[Any], list[str]]:
    """The legend's handles and texts: seaborn's without the names of its variables, and a number is a stack's."""
    pairs = zip(*ax.get_legend_handles_labels(), strict=True)
    shown = [(h, f"stack {t}" if t.isdigit() else t) for h, t in pairs if t not in ("map", "stack", "module")]
    return [h for h, _ in shown], [t for _, t in shown]


def by_temperature(table: pd.DataFrame, trained_tau: float) -> Figure:
    """PCKh, sharpness, irregularity and roughness against tau: a line for each stack, with and without noise.

    table: of `temperature.measure`, and trained_tau. The lines are of the network trained at `trained_tau`, which is
    dotted; squares are networks that were trained at another one, tested at their own without noise.
    """
    others = table[(table["trained_tau"] == table["tau"]) & (table["trained_tau"] != trained_tau) & ~table["noise"]]
    table = table[table["trained_tau"] == trained_tau]
    figure, grid = plt.subplots(2, 2, figsize=(WIDTH, 5.2), sharex=True, layout="constrained")
    table = table.assign(map=table["noise"].map(NOISE))
    labels = {
        "pckh": "PCKh@0.5 (%)",
        "sharpness": "sharpness",
        "irregularity": "irregularity",
        "roughness": "roughness (as drawn)",
    }
    colours = {NOISE[False]: BLUE, NOISE[True]: ORANGE}
    for ax, (column, label) in zip(grid.flat, labels.items(), strict=True):
        same = column == "pckh"  # of the whole network, the same for every stack
        rows = table[table["stack"] == 1] if same else table
        sns.lineplot(
            rows, x="tau", y=column, hue="map", palette=colours, style=None if same else "stack", marker="o",
            markersize=4, errorbar=("pi", 100), legend=column == "sharpness", ax=ax,
        )  # fmt: skip
        if same and len(others):
            points = others.groupby("tau")["pckh"].mean()
            ax.plot(points.index, points, "s", color=GREEN, label="trained at this τ")
            ax.legend(frameon=False, fontsize=9, loc="lower left")
        ax.axvline(trained_tau, color=GREY, linewidth=1, linestyle=":")
        ax.set(xscale="log", xlabel="τ", ylabel="", ylim=None if same else (0, None))
        ax.set_title(label, fontsize=10)
    handles, texts = _legend(grid[0, 1])
    grid[0, 1].get_legend().remove()
    figure.legend(handles, texts, loc="outside lower center", ncols=len(texts), frameon=False, fontsize=9)
    return figure


def gates(table: pd.DataFrame) -> Figure:
    """Each channel's own gate, in the order of its mean, with a band of the persons (`gates.BAND`): by stack.

    table: of `gates.measure`, of one network.
    """
    own = table[table["gate"] == OWN]
    stacks = sorted(own["stack"].unique())
    figure, axes = plt.subplots(
        1, len(stacks), figsize=(WIDTH, 2.8), sharey=True, squeeze=False, layout="constrained"
    )
    for ax, stack in zip(axes.flat, stacks, strict=True):
        channels = own[own["stack"] == stack].sort_values("mean")
        order = np.arange(1, len(channels) + 1)
        inside = f"{100 * (BAND[1] - BAND[0]):g} % of the persons"
        ax.fill_between(order, channels["low"], channels["high"], color=BLUE, alpha=0.3, linewidth=0, label=inside)
        ax.plot(order, channels["mean"], color=BLUE, label="mean")
        ax.set(xlabel="channel, by its mean", ylim=(0, 1))
        ax.set_title(f"stack {stack}", fontsize=10)
    axes[0, 0].set_ylabel("gate")
    figure.legend(
        *axes[0, 0].get_legend_handles_labels(), frameon=False, fontsize=9, loc="outside upper center", ncols=2
    )
    return figure


def by_size(table: pd.DataFrame, reference: str, trained: tuple[float, float]) -> Figure:
    """PCKh against how large a person appears, of a row and the reference, and what the row is better by.

    Line: the mean over the seeds; shaded: from the lowest seed to the highest. trained: the range of sizes in
    training, drawn as a band. table: of `scales.measure` with module and seed.
    """
    figure, (scores, gains) = plt.subplots(1, 2, figsize=(2 * WIDTH - 1.6, 3.2), layout="constrained")
    other = next(name for name in table["module"] if name != reference)
    for name, colour in ((reference, GREY), (other, BLUE)):
        rows = table[table["module"] == name]
        sns.lineplot(
            rows,
            x="size",
            y="pckh",
            color=colour,
            errorbar=("pi", 100),
            marker="o",
            label=ROWS[name].title,
            ax=scores,
        )
    each = table.pivot_table("pckh", ["size", "seed"], "module").dropna()
    gain = (each[other] - each[reference]).rename("gain").reset_index()
    sns.lineplot(gain, x="size", y="gain", color=BLUE, errorbar=("pi", 100), marker="o", ax=gains)
    gains.axhline(0, color="black", linewidth=0.8)
    scores.set_ylabel("PCKh@0.5 (%)")
    gains.set_ylabel(f"PCKh less {ROWS[reference].title}'s (points)")
    sizes = sorted(table["size"].unique())
    for ax in (scores, gains):
        ax.axvspan(*trained, color=GREY, alpha=0.12, linewidth=0)
        ax.set(xscale="log", xlabel="a person's size, 1 as in testing", xlim=(sizes[0] / 1.05, sizes[-1] * 1.05))
        ax.set_xticks(sizes, [f"{size:g}" for size in sizes])
        ax.xaxis.set_minor_formatter(NullFormatter())
        ax.minorticks_off()
    scores.legend(frameon=False, fontsize=9)
    return figure


def gradient_norms(table: pd.DataFrame, ratios: pd.DataFrame) -> Figure:
    """The norms with each kind of attention, and how many times larger they are with SSA than with soft attention.

    Over the short training. table: of `gradients.measure`; ratios: of `gradients.ratios`. The band is the paper's
    "10-100x".
    """
    table, ratios = (frame[frame["training"] == "short"] for frame in (table, ratios))
    figure, (above, below) = plt.subplots(2, 1, figsize=(WIDTH, 6), sharex=True, layout="constrained")
    colours = {"SSA": BLUE, "soft": ORANGE, "MSFI": GREY}
    free = table[~table["noise"]]
    sns.lineplot(
        free, x="epoch", y="norm", hue="module", style="stack", palette=colours, marker="o", markersize=4,
        errorbar=("pi", 100), ax=above,
    )  # fmt: skip
    above.set(yscale="log", ylabel="norm of the gradient, noise-free")
    ratios = ratios.assign(map=ratios["noise"].map(NOISE))
    below.axhspan(10, 100, color=GREY, alpha=0.15, linewidth=0)
    below.annotate("the paper: 10 to 100", (0.02, 10), xycoords=("axes fraction", "data"), va="bottom", fontsize=9)
    sns.lineplot(
        ratios, x="epoch", y="ratio", hue="map", style="stack", palette={NOISE[False]: BLUE, NOISE[True]: GREEN},
        marker="o", markersize=4, errorbar=("pi", 100), ax=below,
    )  # fmt: skip
    below.axhline(1, color="black", linewidth=0.8)
    below.set(yscale="log", xlabel="epoch of the short training", ylabel="SSA / soft")
    below.xaxis.set_major_locator(MaxNLocator(integer=True))
    for ax in (above, below):
        ax.legend(*_legend(ax), frameon=False, fontsize=9, ncols=2)
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
        methods = [method.partition(", ") for method in known.index.get_level_values("Method")]
        same = len({how for *_, how in methods}) == 1  # then the title says it once
        title = [*known.index.unique("Scored on"), *([methods[0][2]] if same and methods[0][2] else [])]
        ax.set_title(f"{whose}: {', '.join(title)}", fontsize=10)
        ax.set(xlabel=f"parameters, {column} (millions)", ylabel="mean PCKh@0.5, official (%)")
        ax.margins(0.12, 0.15)
        texts = [name if same else name + comma + how for name, comma, how in methods]
        _label(ax, known[column].tolist(), known["Mean"].tolist(), texts)
    return figure


def _label(ax: Axes, x: Sequence[float], y: Sequence[float], texts: Sequence[str]) -> None:
    """Texts right of the axes, near their points' heights (in ascending order), none on another or above the axes."""
    low, high = ax.get_ylim()
    step, below, above = (high - low) * 0.075, -np.inf, high
    places = []
    for up in y:
        below = max(up, below + step)
        places.append(below)
    for k in reversed(range(len(places))):
        places[k] = above = min(places[k], above)
        above -= step
    for right, up, place, text in zip(x, y, places, texts, strict=True):
        ax.annotate(
            text,
            (right, up),
            (1.03, place),
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


ERROR_COLOURS = {MIRRORED: BLUE, ANOTHER: GREEN, NEAR: GREY, LIMB: PURPLE, ELSEWHERE: ORANGE}


def error_kinds(table: pd.DataFrame) -> Axes:
    """The wrong joints by kind, a bar for each line of the table, from top to bottom: percent of all joints.

    table: columns of `errors.KINDS`, percent.
    """
    figure = plt.figure(figsize=(WIDTH + 1, 0.9 + 0.3 * len(table)), layout="constrained")
    ax = figure.subplots()
    places, left = -np.arange(len(table)), np.zeros(len(table))
    for kind, colour in ERROR_COLOURS.items():
        ax.barh(places, table[kind], left=left, height=0.7, color=colour, label=kind)
        left = left + table[kind].to_numpy()
    ax.set(xlabel="of the annotated joints (%)", yticks=places, yticklabels=table.index)
    ax.grid(visible=False, axis="y")
    ax.set_axisbelow(True)
    ax.legend(frameon=False, loc="lower center", bbox_to_anchor=(0.4, 1), ncols=5, fontsize=9, columnspacing=1.2)
    return ax


def error_differences(table: pd.DataFrame, source: str) -> Figure:
    """A panel for each kind of mistakes: `differences` of its rates, beyond `NEAR_FAR` as numbers.

    table: of `tables.error_differences`. source: the preset that it is of.
    """
    figure = plt.figure(figsize=(2 * WIDTH, 1.1 + 0.33 * len(table)), layout="constrained")
    index = pd.MultiIndex.from_product([table.index, [source]])
    for kind, ax in zip(ERROR_COLOURS, figure.subplots(1, len(ERROR_COLOURS), sharex=True, sharey=True), strict=True):
        parts = {"value": table[kind], "half": table[f"± {kind}"], "seeds": table["seeds"]}
        differences(pd.DataFrame(parts).set_axis(index), ax, far=NEAR_FAR)
        ax.get_legend().remove()
        ax.set_xlabel("")
        ax.set_title(kind, fontsize=10)
    ax.set_xlim(-1.25 * NEAR_FAR, 1.25 * NEAR_FAR)  # where `differences` cuts its bars
    figure.supxlabel("difference of the annotated joints (points)", fontsize=10)
    return figure


FAR, NEAR_FAR = 6.0, 2.4  # points: a difference beyond that would leave no room to read the others


def differences(table: pd.DataFrame, ax: Axes | None = None, *, far: float | None = None) -> Axes:
    """Differences of mean PCKh with their intervals on one axis (points): the paper's, and ours for each preset.

    table: index (comparison, source), from top to bottom, the source being "printed" or a preset; columns value, half
    (of the interval) and seeds. A point of one or two seeds is open and has no bar: one seed's interval leaves the
    seeds out and would look the surest, two seeds' is too long to draw. What is further from zero than `far`, by
    default `FAR`, stands as a number at the edge, with the part of its bar that is in view. Bars that reach further
    than the axis end in an arrow.
    """
    far = FAR if far is None else far
    edge = 1.25 * far
    names, sources = (list(table.index.unique(level)) for level in (0, 1))
    sources = sorted(sources, key=lambda source: source != "printed")
    if ax is None:
        height = 0.9 + len(names) * (0.2 + 0.13 * len(sources))
        ax = plt.subplots(figsize=(6, height), layout="constrained")[1]
    ax.axvline(0, color="black", linewidth=0.8)
    bars: list[tuple[float, float, float, str]] = []
    for k, source in enumerate(sources):
        colour = PRESET_COLOURS[source]
        rows = table.xs(source, level=1).reindex(names)
        y = -np.arange(len(names)) - 0.7 * ((k + 0.5) / len(sources) - 0.5)
        if source == "printed":
            ax.plot(rows["value"], y, "D", color=colour, markersize=5, label="paper, MPII")
            continue
        several, known = (rows["seeds"] > 2).to_numpy(), (rows["value"].abs() <= far).to_numpy()
        for value, half, up in zip(rows["value"], rows["half"].where(several), y, strict=True):
            if abs(value) > far:
                side = np.sign(value)
                if abs(value) - half < edge:
                    ax.hlines(up, *sorted((value - side * half, side * edge)), color=colour, linewidth=2)
                text, at = (f"◂ {value:.1f}", 0.01) if value < 0 else (f"{value:.1f} ▸", 0.99)
                ax.text(
                    at, up, text.replace("-", "−"), color=colour, fontsize=9,
                    transform=ax.get_yaxis_transform(), ha="left" if value < 0 else "right", va="center",
                    bbox={"facecolor": "white", "edgecolor": "none", "pad": 1},
                )  # fmt: skip
        some, few = known & several, known & ~several
        if some.any():
            ax.errorbar(
                rows["value"][some], y[some], xerr=rows["half"][some], fmt="o", color=colour, label=f"ours, {source}",
                elinewidth=2, markersize=5,
            )  # fmt: skip
        if few.any():
            label = f"ours, {source}: one or two seeds"
            ax.plot(rows["value"][few], y[few], "o", color=colour, label=label, markersize=5, markerfacecolor="white")
        ends = zip(rows["value"][some], rows["half"][some], y[some], strict=True)
        bars += [(value, half, up, colour) for value, half, up in ends]
    low, high = ax.get_xlim()
    ax.set_xlim(max(low, -edge), min(high, edge))
    for value, half, up, colour in bars:
        for marker, side in (("<", -1), (">", 1)):
            if half + side * value > edge:
                ax.plot(0.97 * side * edge, up, marker, color=colour, markersize=6)
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
