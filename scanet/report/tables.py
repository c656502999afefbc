"""Tables of the paper beside ours: records in, data frames out."""

import html
import math
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml
from pandas.io.formats.style import Styler

from scanet import cost
from scanet.config import FINAL_STACKS, ROWS, Network, compared_with, resolve
from scanet.errors import KINDS
from scanet.files import UserError, home
from scanet.measure.gates import OWN
from scanet.measure.temperature import NOISE
from scanet.pckh import CONVENTION, CONVENTIONS, Scores
from scanet.report.statistics import mean_rate, of_seeds, row_difference, row_mean
from scanet.results import Record, one_preset, short

COLUMNS = ("Head", "Sho.", "Elb.", "Wri.", "Hip", "Knee", "Ank.", "Mean")
PRINTED = "printed"  # the source of the paper's numbers; "paper" is a preset
LEDGER = ("Statement", "Place", "Paper", "Preset", "Ours", "Verdict", "Runs")


def paper() -> dict[str, Any]:
    """experiments/paper.yaml: every number of the paper that a table or a page shows. Not to be changed.

    Empty outside of a checkout: a run's own tables then stand without the paper's line.
    """
    path = home() / "experiments" / "paper.yaml"
    return _parsed(path, path.stat().st_mtime_ns) if path.exists() else {}


@lru_cache(maxsize=2)
def _parsed(path: Path, _written: int) -> dict[str, Any]:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def paper_row(module: str) -> dict[str, float]:
    """A row of Table 2 as printed; only its mean for SCA (§3.3.4), nothing for what has no number (soft)."""
    printed = paper()
    if not printed:
        return {}
    if module in printed["table2"]["rows"]:
        return dict(zip(COLUMNS, printed["table2"]["rows"][module], strict=True))
    return {"Mean": printed["means"][module]} if module in printed["means"] else {}


def ablation_row(record: Record, tta: str = "flip") -> pd.DataFrame:
    """The paper's line on MPII, if it has one, and ours on the record's preset. Percent."""
    module = record.settings["module"]
    printed, ours = paper_row(module), record.scores(tta).row(CONVENTION)
    label = f"ours, {record.settings['preset']}" + ("" if record.held_out else ", persons it was TRAINED ON")
    rows = {**({"paper, MPII": printed} if printed else {}), label: ours}
    return pd.DataFrame.from_dict(rows, orient="index", columns=list(COLUMNS)).rename_axis(record.run["title"])


def table2(records: Sequence[Record]) -> pd.DataFrame:
    """Table 2: for each row of it the paper's line and ours, by flip test, the mean over the seeds. Percent.

    Index: (method, source), the source being "printed" (the paper) or the preset. Columns: the paper's, the mean in
    front, and "Δ" (mean less the MSFI row's mean, of the same source; for MSFI itself less Baseline's). "seeds" are
    those of our mean, "Δ seeds" those that both rows have, which our difference is of. "± Mean" and "± Δ" are half
    the 95 % intervals of the two, those of `scanet.report.statistics`: with one seed they say nothing of seeds.

    Raises:
        UserError: the records have several presets, or were scored on different persons.
    """
    preset = one_preset(records)
    of = {module: [r for r in records if r.settings["module"] == module] for module in ROWS}
    each = pd.DataFrame([r.scores().row(CONVENTION) for r in records])
    each.index = pd.MultiIndex.from_tuples([(r.settings["module"], r.settings["seed"]) for r in records])
    means, seeds = each.groupby(level=0).mean(), each.groupby(level=0).size()
    lines: dict[tuple[str, str], dict[str, float]] = {}
    for module, row in ROWS.items():
        if paper_row(module):
            lines[row.title, PRINTED] = paper_row(module)
        if module in means.index:
            half = row_mean(of[module]).half_width()
            lines[row.title, preset] = {**means.loc[module].to_dict(), "± Mean": half, "seeds": seeds[module]}
    index = pd.MultiIndex.from_tuples(lines, names=["Method", "Source"])
    columns = ["Mean", "± Mean", "seeds", "Δ", "± Δ", "Δ seeds", *COLUMNS[:-1]]
    frame = pd.DataFrame(list(lines.values()), index=index, columns=columns)
    for source in frame.index.unique("Source"):
        mean = frame.xs(source, level="Source")["Mean"]
        for module, row in ROWS.items():
            against = compared_with(module)
            if module == "Baseline" or row.title not in mean.index or against not in mean.index:
                continue
            if source == PRINTED:
                frame.loc[(row.title, source), "Δ"] = mean[row.title] - mean[against]
            elif (estimate := row_difference(of[module], of[against])) is not None:
                found = [estimate.value, estimate.half_width(), estimate.seeds]
                frame.loc[(row.title, source), ["Δ", "± Δ", "Δ seeds"]] = found
    return frame


def of_several_lengths(records: Sequence[Record]) -> list[Record]:
    """The records of those rows that have been trained for several numbers of epochs.

    records: as `results.records(preset, of_any_length=True)` gives them.

    Raises:
        UserError: there is no such row.
    """
    lengths: dict[str, set[int]] = {}
    for record in records:
        lengths.setdefault(record.settings["module"], set()).add(record.settings["epochs"])
    several = [record for record in records if len(lengths[record.settings["module"]]) > 1]
    if not several:
        raise UserError(
            "no row has been trained for several lengths: train one for another number of epochs, "
            "as in `scanet train ROW --preset PRESET --set epochs=36`"
        )
    return several


def lengths(records: Sequence[Record]) -> pd.DataFrame:
    """What longer and shorter runs reach, by flip test. Percent.

    Index: (method, epochs). Columns: "Mean", over the seeds; "Δ length", less that of the same row's runs of the
    preset's own length; "Δ Baseline", less that of the Baseline's runs of the same length; of the seeds that both
    have. Each with "±" before its name: half the 95 % interval of `scanet.report.statistics`. "seeds".

    Raises:
        UserError: the records have several presets, or were scored on different persons.
    """
    one_preset(records)
    groups: dict[tuple[str, int], list[Record]] = {}
    for record in records:
        groups.setdefault((record.run["title"], record.settings["epochs"]), []).append(record)
    columns = ["Mean", "± Mean", "Δ length", "± Δ length", "Δ Baseline", "± Δ Baseline", "seeds"]
    table = pd.DataFrame(index=pd.MultiIndex.from_tuples(groups, names=["Method", "epochs"]), columns=columns)
    table = table.astype(float)
    for (method, epochs), group in groups.items():
        own = [record for record in records if record.canonical and record.run["title"] == method]
        baseline = groups.get(("Baseline", epochs), []) if method != "Baseline" else []
        found = {
            "Mean": row_mean(group),
            "Δ length": row_difference(group, own) if not group[0].canonical else None,
            "Δ Baseline": row_difference(group, baseline),
        }
        for name, estimate in found.items():
            if estimate is not None:
                table.loc[(method, epochs), [name, f"± {name}"]] = estimate.value, estimate.half_width()
        table.loc[(method, epochs), "seeds"] = len(group)
    return table


def differences(table: pd.DataFrame) -> pd.DataFrame:
    """The differences of `table2` for `scanet.report.figures.differences`: "MSFI − Baseline", the others less MSFI.

    Of rows of one's own and those that the paper gives a number for: `soft` may lie so far off that nothing else can
    be read.
    """
    own = [row.title for row in ROWS.values() if row.place == "ours"]
    shown = [*table.xs(PRINTED, level="Source").index, *own]
    known = table[table["Δ"].notna() & table.index.get_level_values("Method").isin(shown)]
    comparison = [f"{title} − {compared_with(title)}" for title, _ in known.index]
    index = pd.MultiIndex.from_arrays([comparison, known.index.get_level_values("Source")])
    return known[["Δ", "± Δ", "Δ seeds"]].set_axis(["value", "half", "seeds"], axis=1).set_axis(index)


def table1(records: Sequence[Record]) -> pd.DataFrame:
    """Table 1: the paper's lines on MPII's test set, and ours on the preset's validation persons. Percent.

    Index: (method, scored on). Ours are in Table 1's convention ("official"), a line for each row that the paper
    gives a number for, number of stacks and way of testing with mirrored images, the mean over the seeds. Columns:
    the mean in front; "printed", the parameters that the paper states, millions; "counted" and "GFLOP", of the
    network as it is here and for one image of its size; "seeds".

    Raises:
        UserError: the records have several presets.
    """
    preset = one_preset(records)
    printed = paper()["table1"]
    # The two methods of Table 1 that this package has: the 8-stack hourglass and the paper's own.
    known = {"Newell et al. [4]": Network(stacks=8), "ours": Network(row=ROWS["ALL"], stacks=FINAL_STACKS)}
    lines: dict[tuple[str, str], dict[str, float]] = {}
    for method, values in printed["rows"].items():
        line = dict(zip(COLUMNS, values, strict=True)) | {"printed": printed["parameters"].get(method, float("nan"))}
        lines[method if method != "ours" else "the paper's", "MPII test"] = line | _costs(known.get(method), 256)
    groups: dict[tuple[int, int], list[Record]] = {}
    for record in records:
        if not paper_row(record.settings["module"]):  # such as soft attention: no method of the paper's
            continue
        place = list(ROWS).index(record.settings["module"])
        groups.setdefault((record.settings["stacks"], place), []).append(record)
    for (stacks, _), group in sorted(groups.items()):
        size = group[0].settings["input_size"]
        known_costs = _costs(group[0].network, size)
        whom = f"{preset} validation"
        for tta in ("flip", "six-scale"):
            tested = [record.scores(tta).row("official") for record in group if tta in record.run["metrics"]]
            if tested:
                title = f"{group[0].run['title']}, {stacks} stack{'s' * (stacks > 1)}, {tta}"
                lines[title, whom] = pd.DataFrame(tested).mean().to_dict() | known_costs | {"seeds": len(tested)}
    index = pd.MultiIndex.from_tuples(lines, names=["Method", "Scored on"])
    columns = ["Mean", "seeds", "printed", "counted", "GFLOP", *COLUMNS[:-1]]
    return pd.DataFrame(list(lines.values()), index=index, columns=columns)


def _costs(network: Network | None, input_size: int) -> dict[str, float]:
    if network is None:
        return {}
    return {"counted": cost.parameters(network) / 1e6, "GFLOP": cost.flops(network, input_size) / 1e9}


def final(records: Sequence[Record], tta: str) -> pd.DataFrame:
    """The final model's two stages in Table 1's convention and as a plain mean, below the paper's last row. Percent.

    The label of a run that was trained on the persons that it is scored on says so.
    """
    lines: dict[tuple[str, str], dict[str, float]] = {}
    if printed := paper():
        lines["Table 1, MPII test", "official"] = dict(zip(COLUMNS, printed["table1"]["rows"]["ours"], strict=True))
    for convention in ("official", CONVENTION):
        for record in records:
            whom = "validation" if record.held_out else "persons it was TRAINED ON"
            label = f"{record.run['title']}, {record.settings['preset']} {whom}"
            lines[label, convention] = record.scores(tta).row(convention)
    index = pd.MultiIndex.from_tuples(lines, names=["Scored on", "Convention"])
    return pd.DataFrame(list(lines.values()), index=index, columns=["Mean", *COLUMNS[:-1]])


def conventions(scores: Scores) -> pd.DataFrame:
    """PCKh in every convention: a mean can differ by a point with the convention alone. Percent."""
    rows = {name: scores.row(name) for name in CONVENTIONS}
    return pd.DataFrame.from_dict(rows, orient="index", columns=list(COLUMNS)).rename_axis("convention")


def facts(record: Record) -> pd.Series:
    """What a reader needs to know of a run, and to find it again."""
    run, settings = record.run, record.settings
    persons = record.scores().persons
    start = {"starts from": "{name}, key {key}".format(**run["start"])} if "start" in run else {}
    return pd.Series(
        {
            "run": record.name,
            **start,
            "preset": settings["preset"],
            "seed": settings["seed"],
            "data": f"{run['data']['dataset']}, fingerprint {run['data']['fingerprint']}",
            "persons": f"{run['data']['train']} for training, {run['data']['valid']} for validation, "
            f"{persons} of them scored" + ("" if record.held_out else ", and all of these among the first"),
            "network": f"{settings['stacks']} stacks, {settings['channels']} channels, "
            f"{settings['input_size']} x {settings['input_size']} pixels, "
            f"{run['network']['parameters']:,} parameters",
            "recipe": f"{settings['epochs']} epochs, batches of {settings['batch_size']}, "
            f"learning rate {settings['learning_rate']:g}",
            "time": f"{run['seconds'] / 60:.1f} minutes of training, {run['images_per_second']:.0f} images/s",
            "device": run["device"],
            "peak memory": f"{run['peak_memory'] / 2**30:.2f} GiB",
            "commit": run["commit"],
            "torch": run["versions"]["torch"],
            "key": run["key"],
            "made": run["created"],
        },
        name="",
    )


def runs(records: Sequence[Record]) -> pd.DataFrame:
    """A line for each record: where to find it, and what it took."""
    columns = ["Run", "PCKh, one pass", "PCKh, flip", "minutes", "images/s", "device", "commit", "key"]
    lines = [
        {
            "Run": record.name,
            "PCKh, one pass": record.scores("none").row(CONVENTION)["Mean"],
            "PCKh, flip": record.scores("flip").row(CONVENTION)["Mean"],
            "minutes": record.run["seconds"] / 60,
            "images/s": record.run["images_per_second"],
            "device": record.run["device"],
            "commit": short(record.run["commit"]),
            "key": record.run["key"],
        }
        for record in records
    ]
    return pd.DataFrame(lines, columns=columns).set_index("Run")


def histories(records: Sequence[Record]) -> pd.DataFrame:
    """Every record's history, with its row's title as "Method", its seed, and its number of epochs as "length"."""
    one_preset(records)
    frames = [
        r.history().assign(Method=r.run["title"], seed=r.settings["seed"], length=r.settings["epochs"])
        for r in records
    ]
    return pd.concat(frames, ignore_index=True)


#: How irregular maps are, and where they are high: columns of `temperature.measure`.
SHAPES, PLACES = ("pckh", "sharpness", "irregularity", "roughness"), ("contrast", "at_joints", "background")


def temperatures(table: pd.DataFrame, trained_tau: float, measures: Sequence[str]) -> pd.DataFrame:
    """A line for each tau of the network trained at `trained_tau`: the last stack's, without and with noise, means
    over the seeds.

    table: of `temperature.measure`, and trained_tau. measures: columns of it.
    """
    own = table[(table["trained_tau"] == trained_tau) & (table["stack"] == table["stack"].max())]
    own = own.assign(map=own["noise"].map(NOISE)).rename(columns={name: name.replace("_", " ") for name in measures})
    values = [name.replace("_", " ") for name in measures]
    frame = own.pivot_table(index="tau", columns="map", values=values)[values]
    return frame.set_axis([f"{tau:g}" for tau in frame.index]).rename_axis("τ")


def trained_at(table: pd.DataFrame, trained_tau: float) -> pd.DataFrame:
    """A line for each tau that networks were trained at: PCKh at that tau without noise, less that of the networks
    trained at `trained_tau`, seed by seed, and half the 95 % interval of the seeds.

    table: of `temperature.measure`, with trained_tau and seed.
    """
    own = table[(table["trained_tau"] == table["tau"]) & ~table["noise"]]
    frame = _compared(own.pivot_table("pckh", "seed", "trained_tau"), trained_tau)
    return frame.set_axis([f"{tau:g}" for tau in frame.index]).rename_axis("trained at τ")


def error_kinds(records: Sequence[Record]) -> pd.DataFrame:
    """How many of the joints of each row are of each of `errors.KINDS`: percent, by flip test.

    Means over the joints and seeds. Index: method. Columns: the kinds, which add up to 100 and of which "right" is
    PCKh; "seeds".

    Raises:
        UserError: the records have several presets, or were scored on different persons.
    """
    one_preset(records)
    lines = {
        row.title: {kind: mean_rate(of, kind) for kind in KINDS} | {"seeds": len(of)}
        for module, row in ROWS.items()
        if (of := [record for record in records if record.settings["module"] == module])
    }
    return pd.DataFrame.from_dict(lines, orient="index").rename_axis("Method")


def error_differences(records: Sequence[Record]) -> pd.DataFrame:
    """The rates of wrong joints by kind, less those of MSFI, and MSFI's less the Baseline's: points.

    Index: as `differences` names it. Columns: the kinds of errors, each with "±" before its name for half the 95 %
    interval of `scanet.report.statistics`; "seeds", that both rows have.
    """
    one_preset(records)
    lines: dict[str, dict[str, float]] = {}
    for module, row in ROWS.items():
        against = compared_with(module)
        ours, theirs = ([r for r in records if r.settings["module"] == name] for name in (module, against))
        for kind in KINDS[1:] if module != "Baseline" else ():
            if (estimate := row_difference(ours, theirs, kind=kind)) is not None:
                line = lines.setdefault(f"{row.title} − {against}", {})
                line |= {kind: estimate.value, f"± {kind}": estimate.half_width()}
                line["seeds"] = estimate.seeds
    columns = [name for kind in KINDS[1:] for name in (kind, f"± {kind}")] + ["seeds"]
    return pd.DataFrame.from_dict(lines, orient="index", columns=columns).rename_axis("Difference")


def errors_by_joint(records: Sequence[Record], module: str) -> pd.DataFrame:
    """As `error_kinds`, of one row's joints, both sides together. Index: joint.

    Raises:
        UserError: no record is of the row.
    """
    of = [record for record in records if record.settings["module"] == module]
    if not of:
        command = f"scanet train {module} --preset {one_preset(records)}"
        raise UserError(f"no run of {module} is there: make one with `{command}`, or give another row")
    names = [of[0].skeleton.joints[joint] for joint in of[0].skeleton.scored]
    rates = []
    for record in of:
        kinds, annotated = record.kinds()
        counts = [((kinds == number) & annotated).sum(axis=0) for number in range(len(KINDS))]
        rates.append(pd.DataFrame(counts, index=KINDS, columns=names).T.div(annotated.sum(axis=0), axis=0) * 100)
    both = [name.removeprefix("r-").removeprefix("l-") for name in names]
    order = ["head-top", "neck", "shoulder", "elbow", "wrist", "hip", "knee", "ankle"]
    return sum(rates[1:], rates[0]).div(len(rates)).groupby(both).mean().loc[order].rename_axis("Joint")


def gate_scores(table: pd.DataFrame) -> pd.DataFrame:
    """PCKh with each kind of gate, and its difference from that with the persons' own: means over the seeds.

    "± Δ": half the 95 % interval of the seeds. table: of `gates.measure`, with its seeds.
    """
    return _compared(table.pivot_table("pckh", "seed", "gate", sort=False), OWN).rename_axis("Gate")


def _compared(scores: pd.DataFrame, reference: Hashable) -> pd.DataFrame:
    """A line for each column of `scores`, whose lines are seeds: its mean, and its difference from the column
    `reference`, seed by seed, with half the 95 % interval of the seeds.
    """
    less = scores.sub(scores[reference], axis=0)
    half = {name: of_seeds(less[name].dropna().tolist()).half_width() for name in less if name != reference}
    frame = pd.DataFrame({"PCKh@0.5": scores.mean(), "Δ": less.mean(), "± Δ": half, "seeds": less.count()})
    return frame.loc[scores.columns]


def gate_spreads(table: pd.DataFrame) -> pd.DataFrame:
    """By stack and seed, of the persons' own gates: the mean, the standard deviation of the channels' means, and that
    over the persons, as a mean of the channels.

    table: of `gates.measure`, with its seeds.
    """
    own = table[table["gate"] == OWN].groupby(["stack", "seed"])
    columns = {
        "mean": own["mean"].mean(),
        "over channels": own["mean"].std(ddof=0),
        "over persons": own["spread"].mean(),
    }
    return pd.DataFrame(columns)


def by_size(table: pd.DataFrame, reference: str) -> pd.DataFrame:
    """PCKh by how large a person appears: a line a size, means over the seeds. Percent.

    table: of `scales.measure` with module and seed, of the reference and another row. Columns: both rows, their
    difference "Δ" of the seeds that both have, "Δ less that at 1", above 0 where the other row loses less than the
    reference does, and "±", half the 95 % interval of that; points.
    """
    other = next(name for name in table["module"] if name != reference)
    columns = [name for name in table if str(name).startswith("pckh")]  # of all persons, then without parts of them
    each = table.set_index(["module", "size", "seed"])[columns].sort_index()
    ours, theirs = each.loc[other].align(each.loc[reference], join="inner")
    gain = ours - theirs
    less = gain.sub(gain.xs(1.0, level="size"), axis=0, level="seed")
    lines = {}
    for size in sorted(gain.index.unique("size")):
        whole, *without = less.xs(size, level="size").to_numpy().T.tolist()
        estimate = of_seeds(whole, without)
        lines[f"{size:g}"] = {
            ROWS[reference].title: theirs["pckh"][size].mean(),
            ROWS[other].title: ours["pckh"][size].mean(),
            "Δ": gain["pckh"][size].mean(),
            "Δ less that at 1": estimate.value,
            "±": estimate.half_width() if size != 1 else math.nan,
        }
    return pd.DataFrame.from_dict(lines, orient="index").rename_axis("Size")


def gradient_ratios(ratios: pd.DataFrame) -> pd.DataFrame:
    """A line for each training and epoch: `gradients.ratios`, their mean over the seeds, by stack and with noise."""
    labelled = ratios.assign(map=ratios["noise"].map(NOISE))
    return labelled.pivot_table(index=["training", "epoch"], columns=["map", "stack"], values="ratio", sort=False)


def finished_norms(table: pd.DataFrame) -> pd.DataFrame:
    """The norms of `gradients.measure` in the finished networks, means over the seeds: a line a network, by stack."""
    finished = table[table["training"] == "finished"]
    labelled = finished.assign(
        Network=finished["module"].where(finished["module"] != "SSA", "SSA, " + finished["noise"].map(NOISE))
    )
    return labelled.pivot_table(index="Network", columns="stack", values="norm", sort=False)


def by_stacks(cost: Callable[[Network], int], joints: int = 16, stacks: Sequence[int] = (1, 2, 4, 8)) -> pd.DataFrame:
    """A cost (of `scanet.cost`) of every row, by the number of stacks.

    Two networks of each row are counted: every stack after the first costs the same.
    """
    table = {}
    for row in ROWS.values():
        one, two = (cost(Network(row=row, joints=joints, stacks=n)) for n in (1, 2))
        table[row.title] = [one + (n - 1) * (two - one) for n in stacks]
    return pd.DataFrame.from_dict(table, orient="index", columns=list(stacks)).rename_axis("Method")


def number(kind: str, value: float, digits: int = 2) -> str:
    """A value of a claim of one kind as text: differences with their sign, parameters in millions."""
    if kind == "measurement":
        text = np.format_float_positional(value, 3, fractional=False, trim="-")  # of 0.0000667 too
    elif kind == "parameters":
        text = f"{value:.{digits}f}"
    else:
        text = f"{value:{'+' if kind == 'difference' else ''}.{digits}f}"
    return text.replace("-", "−")


def ledger(lines: pd.DataFrame, page: Callable[[str], str]) -> str:
    """The claims' ledger (`claims.ledger`) as HTML, by topic: some lines for each claim, cards on a phone.

    page: the address of a run's page, empty if there is none.
    """
    head = "".join(f"<th>{name}</th>" for name in LEDGER)
    body = ""
    for topic, of_topic in lines.groupby("topic", sort=False):
        body += f'<tbody class="topic"><tr><th colspan="{len(LEDGER)}">{html.escape(str(topic))}</th></tr></tbody>'
        body += "".join(_group(of_claim, page) for _, of_claim in of_topic.groupby("id", sort=False))
    return f'<table class="ledger"><thead><tr>{head}</tr></thead>{body}</table>'


def verdicts(lines: pd.DataFrame, words: Sequence[str]) -> str:
    """How many claims of a topic have which of the verdicts `words`, by preset, as HTML: a short account."""
    rows = []
    for topic, of_topic in lines.groupby("topic", sort=False):
        presets = of_topic["preset"].unique()
        for k, preset in enumerate(presets):
            counts = of_topic["verdict"][of_topic["preset"] == preset].value_counts()
            found = " ".join(f"<span>{counts[word]} {verdict(word)}</span>" for word in words if word in counts)
            first = f'<th scope="rowgroup" rowspan="{len(presets)}">{html.escape(str(topic))}</th>' if k == 0 else ""
            rows.append(f"<tr>{first}<td>{preset or '–'}</td><td>{found}</td></tr>")
    head = "<thead><tr><th>Topic</th><th>Preset</th><th>Verdicts</th></tr></thead>"
    return f'<table class="verdicts">{head}<tbody>{"".join(rows)}</tbody></table>'


def decided(lines: pd.DataFrame) -> str:
    """The lines of the ledger that say yes or no, as an HTML list: an item for each claim.

    It links the claim's place in the ledger and has the values of all presets that say the same.
    """
    items = ""
    for word in ("reproduced", "not reproduced"):
        for name, of_claim in lines[lines["verdict"] == word].groupby("id", sort=False):
            first = of_claim.iloc[0]
            link = f'<a href="#claim-{name}">{html.escape(first["statement"])}</a>'
            values = "; ".join(
                f"{line.preset and f'{line.preset}: '}{_value(line)}" for line in of_claim.itertuples()
            )
            about = f"{html.escape(first['topic'])}; {html.escape(first['asked'])}"
            items += f"<li>{verdict(word)} {link} <small>{about}<br>{values}</small></li>"
    return f'<ul class="decided">{items}</ul>'


def scope(presets: Iterable[str]) -> str:
    """What a reader of the paper has to know first, where none of the presets is MPII's; empty where one is."""
    kinds = {"synthetic": "drawn people", "lspet": "photographs of LSP Extended"}
    by_kind: dict[str, list[str]] = {}
    for preset in presets:
        by_kind.setdefault(resolve(preset=preset).dataset, []).append(f"`{preset}`")
    if "mpii" in by_kind:
        return ""
    where = " and ".join(f"on {kinds[name]} ({', '.join(names)})" for name, names in by_kind.items())
    return f"**No run behind this book is on MPII.** Its runs are {where}: no number of the paper's tables is tested."


def steps(differences: pd.DataFrame) -> str:
    """How large the paper's steps are, and what intervals of three seeds or more can tell of them; for Markdown.

    differences: `scanet.report.claims.table2_differences`.
    """
    printed = differences.xs(PRINTED, level="Source")["value"].abs()
    several = differences[differences["seeds"] > 2]
    half, excluded = several["half"], (several["value"].abs() > several["half"]).sum()
    if several.empty:
        found = "no row here has the three seeds that an interval takes"
    else:
        found = f"our intervals of three seeds or more are ± {half.min():.1f} to ± {half.max():.1f} points"
        which = f"{excluded} of {len(several)} exclude" if excluded else f"none of {len(several)} excludes"
        found += f", and {which} 0"
    return f"**In short**: the paper's steps are {printed.min():.2f} to {printed.max():.2f} points; {found}."


def outcome(differences: pd.DataFrame) -> str:
    """What came of the paper's differences, as a Markdown list: an item for the paper and one for each preset.

    How many are positive; of those with three seeds or more, how many intervals exclude 0, or the paper's value, and
    how long they are; and where the whole network ends. Empty without a preset.

    differences: `scanet.report.claims.table2_differences`.
    """
    printed = differences.xs(PRINTED, level="Source")["value"]
    rows = {row for name in printed.index for row in name.split(" − ")}
    items = []
    for preset, of in differences.drop(PRINTED, level="Source").groupby(level="Source", sort=False):
        several = of[of["seeds"] > 2].droplevel("Source")
        above, below = ((sign * several["value"] > several["half"]).sum() for sign in (1, -1))
        item = f"- `{preset}`: {(of['value'] > 0).sum()} of {len(of)} are positive. "
        if several.empty:
            item += "No interval is of three seeds or more."
        else:
            which = f", {several.index[0]}" if len(several) == 1 else ""
            apart = several.index[(several["value"] - printed[several.index]).abs() > several["half"]]
            item += f"Intervals of three seeds or more: {len(several)}{which}; {above} above 0, {below} below, "
            item += f"{len(several) - above - below} around it; the paper's step lies "
            item += f"outside {len(apart)} of them ({', '.join(apart)})" if len(apart) else "inside each"
            item += f"; ± {several['half'].median():.1f} points"
            item += f" in the median, ± {several['half'].min():.1f} at the least." if len(several) > 1 else "."
        if ("ALL − Baseline", preset) in of.index:
            whole, seeds = of.loc[("ALL − Baseline", preset), ["value", "seeds"]]
            side, many = "above" if whole > 0 else "below", "one seed" if seeds == 1 else f"{seeds:.0f} seeds"
            item += f" The whole network is {abs(whole):.1f} points {side} the baseline ({many})."
        items.append(item)
    first = (
        f"- The paper: {(printed > 0).sum()} of {len(printed)} differences are positive, the largest "
        f"{printed.max():.2f}. They are between {len(rows)} rows, and so not independent."
    )
    return "\n".join([first, *items]) if items else ""


def glance(lines: pd.DataFrame, questions: Mapping[str, str]) -> str:
    """Some claims of the ledger (`claims.ledger`) as a short HTML table: a row a claim, a column a preset.

    questions: the text of a row by the claim's id, which it links in the ledger.
    """
    presets = [preset for preset in lines["preset"].unique() if preset]
    head = "".join(f"<th>{html.escape(preset)}</th>" for preset in presets)
    body = ""
    for name, question in questions.items():
        cells = ""
        for preset in presets:
            found = lines[(lines["id"] == name) & (lines["preset"] == preset)]
            said = "".join(f"{verdict(line.verdict)} {_ours(line)}" for line in found.itertuples())
            cells += f'<td data-label="{html.escape(preset)}">{said}</td>'
        body += f'<tr><td><a href="#claim-{name}">{html.escape(question)}</a></td>{cells}</tr>'
    return f'<table class="glance"><thead><tr><th></th>{head}</tr></thead><tbody>{body}</tbody></table>'


def verdict(word: str) -> str:
    """A verdict as HTML: the word, and a colour by its class."""
    return f'<span class="verdict {word.replace(" ", "-")}">{word}</span>'


def _group(lines: pd.DataFrame, page: Callable[[str], str]) -> str:
    rows = []
    for k, line in enumerate(lines.itertuples()):
        cells = [line.preset, _ours(line), verdict(line.verdict), _links(line.runs, page)]
        if k == 0:
            notes = [line.asked, line.because and f"Nothing else can come out here: {line.because}."]
            small = "".join(f"<small>{html.escape(note)}</small>" for note in notes if note)
            cells = [html.escape(line.statement) + small, line.place, line.paper, *cells]
        names = LEDGER[-len(cells) :]
        span = f' rowspan="{len(lines)}"' if k == 0 and len(lines) > 1 else ""
        tags = [
            f'<td data-label="{name}"{span if name in LEDGER[:3] else ""}>{cell and f"<div>{cell}</div>"}</td>'
            for name, cell in zip(names, cells, strict=True)
        ]
        rows.append(f"<tr>{''.join(tags)}</tr>")
    return f'<tbody id="claim-{lines["id"].iloc[0]}">{"".join(rows)}</tbody>'


def _ours(line: Any) -> str:
    """A line's value with its interval, and how many seeds it is of, as HTML."""
    if not math.isnan(line.low):
        of = f"{line.seeds:.0f} seeds" if line.seeds > 1 else "one seed, persons alone"
    else:
        of = "one seed" if line.seeds == 1 else ""
    return _value(line) + (of and f" <small>{of}</small>")


def _value(line: Any) -> str:
    """A line's value and, where it has one, its interval, as HTML."""
    if math.isnan(line.low):
        return "" if math.isnan(line.value) else number(line.kind, line.value)
    value, low, high = (number(line.kind, each) for each in (line.value, line.low, line.high))
    return f"{value} <span>[{low}, {high}]</span>"


def _links(runs: Sequence[str], page: Callable[[str], str]) -> str:
    """The runs by what they are called, a link for each seed: "SSA 0 1 2"; of measurements the page that has them."""

    def link(address: str, text: str, title: str) -> str:
        return f'<a href="{html.escape(address)}" title="{title}">{text}</a>' if address else text

    by_name: dict[str, list[str]] = {}
    for run in runs:
        *_, experiment, name = ["", *run.split("/")]
        row, _, seed = name.rpartition("-s")
        if experiment in ("", "ablation"):
            by_name.setdefault(row, []).append(link(page(run), seed, run))
        else:
            by_name[link(page(run), experiment, f"{experiment}: its runs and measurements")] = []
    return "<br>".join(" ".join([name, *seeds]) for name, seeds in by_name.items())


def show(table: pd.DataFrame | pd.Series, precision: int = 2) -> Styler:
    """The table as a page shows it: two decimals, or `precision`, none for seeds; what is missing is empty."""
    frame = table.to_frame() if isinstance(table, pd.Series) else table
    style = frame.style.format(precision=precision, na_rep="").set_table_attributes('class="dataframe"')
    style = style.format(
        precision=0, na_rep="", subset=[name for name in frame.columns if str(name).endswith("seeds")]
    )
    return style.hide(axis="columns") if isinstance(table, pd.Series) else style
