"""Tables of a benchmark's record: rates, ratios beside their targets, and the roofline. Records in, frames out."""

from statistics import median
from typing import Any

import pandas as pd

Record = dict[str, Any]

#: How much slower than its operations say a row may be.
ALLOWANCE = 1.15


def rates(record: Record) -> pd.DataFrame:
    """Images a second, medians over the rounds; memory that a training step takes on top, GiB.

    time, of allowed: see `of_allowed`.
    """
    lines = {}
    for row, found in record["rows"].items():
        line = {name: median(values) for name, values in found.items() if isinstance(values, list)}
        peak = found["peak_memory"]
        lines[row] = {
            **line,
            "time, of allowed": of_allowed(record, row),
            "peak memory (GiB)": None if peak is None else peak / 2**30,
        }
    return pd.DataFrame.from_dict(lines, orient="index").rename_axis("row")


def of_allowed(record: Record, row: str) -> float:
    """The time of a row's step over what it may take: its operations over the first row's, times `ALLOWANCE`."""
    first, found = next(iter(record["rows"].values())), record["rows"][row]
    time = ratios(first["training, fixed batch"], found["training, fixed batch"])
    return time / (ALLOWANCE * found["flops"] / first["flops"])


def text(record: Record) -> str:
    """A record as the command line prints it."""
    if "processes" in record:
        return f"Images a second\n{_printed(together(record))}"
    met = [
        f"{what}: {line['value']:.3g}, {line['target']}: {'met' if line['met'] else 'missed'}"
        + f": {line['why']}" * bool(line["why"])
        for what, line in targets(record).iterrows()
    ]
    machine = record["machine"]
    matrix = ", ".join(f"{name} {rate / 1e9:.0f} GFLOP/s" for name, rate in machine["matrix"].items() if rate)
    parts = [
        f"Images a second\n{_printed(rates(record))}",
        "\n".join(met) + f"\n{where_time_goes(record)}",
        f"A training step of the first row, for one image\n{_printed(stages(record))}\n"
        f"limits measured: {matrix}, {machine['bandwidth'] / 1e9:.1f} GB/s\n"
        f"load {record['load'][0]:.1f} before; time by the {record['clock']}'s clock",
    ]
    return "\n\n".join(parts)


def _printed(table: pd.DataFrame) -> str:
    return table.to_string(float_format="{:.2f}".format, na_rep="")


def ratios(a: list[float], b: list[float]) -> float:
    """The median of the rounds' ratios a / b."""
    return median(x / y for x, y in zip(a, b, strict=True))


def targets(record: Record) -> pd.DataFrame:
    """What was to be reached, and what was: a line for each target that the record can speak of.

    why: of a missed one, for what `where_time_goes` does not say.
    """
    rows, others = record["rows"], record["others"]
    first = next(iter(rows))
    cuda = not record["device"].startswith(("cpu", "mps"))
    lines: list[dict[str, Any]] = []

    def line(what: str, value: float, target: float, *, least: bool, why: str = "") -> None:
        met = value >= target if least else value <= target
        bound = f"at least {target:g}" if least else f"at most {target:g}"
        lines.append({"what": what, "value": value, "target": bound, "met": met, "why": "" if met else why})

    for row, found in rows.items():
        if "training, plain" in found:
            ratio = ratios(found["training, from the store"], found["training, plain"])
            line(f"training, times the plain way: {row}", ratio, 5.0 if cuda else 3.0, least=True)
            if "training, compiled" in found:
                ratio = ratios(found["training, compiled"], found["training, plain"])
                line(f"the same, by torch.compile: {row}", ratio, 5.0 if cuda else 3.0, least=True)
    if "six scales, plain" in others:
        ratio = ratios(others["six scales, plain"], others["six scales"])
        line("six scales and flip, times the plain way", ratio, 3.0, least=True)
    fixed = rows[first]["training, fixed batch"]
    if cuda:  # the device works while the next batch is made
        share = ratios(fixed, rows[first]["training, from the store"]) - 1
    else:  # one after the other
        share = median(seconds * rate for seconds, rate in zip(others["input"], fixed, strict=True))
    line("input, of a step on a batch in memory", share, 0.05, least=False, why="the network is too small")
    if len(rows) > 1:
        over = {row: of_allowed(record, row) for row in rows if row != first}
        slow = ", ".join(row for row, share in over.items() if share > 1)
        why = f"{slow}: smaller layers, or more bytes for an operation"
        line("the slowest row's time, of allowed", max(over.values()), 1.0, least=False, why=why)
    line("PCKh of 2,958 persons (ms)", 1000 * median(others["PCKh"]), 5.0, least=False, why="a busy processor")
    return pd.DataFrame(lines).set_index("what")


def side_by_side(records: dict[str, Record]) -> pd.DataFrame:
    """`targets` of several records, by their names: a line for each target, and a mark at what was met."""
    columns = {}
    for name, record in records.items():
        found = targets(record).set_index("target", append=True)
        columns[name] = found["value"].map("{:.3g} ".format) + found["met"].map({True: "✓", False: "✗"})
    return pd.DataFrame(columns).reindex(pd.concat(columns).index.droplevel(0).unique()).fillna("")


def where_time_goes(record: Record) -> str:
    """A sentence about a training step of the first row, from the profile and the machine's limits."""
    stages = roofline(record)
    total = stages["seconds"].sum()
    longest = stages["seconds"].idxmax()
    matrix = record["machine"]["matrix"]
    first, found = next(iter(record["rows"].items()))
    text = (
        f"{stages.loc[longest, 'seconds'] / total:.0%} of the step is {longest}, at "
        f"{stages.loc[longest, 'of the limit']:.0%} "
        f"of the machine's limit; all of it together is at {stages['limit'].sum() / total:.0%}"
    )
    if matrix["bf16"]:
        text += f"; bf16 multiplies matrices {matrix['bf16'] / matrix['fp32']:.1f} times as fast as fp32 here"
    if "training, plain" in found:
        most = (matrix["bf16"] or matrix["fp32"]) / (3 * found["flops"]) / median(found["training, plain"])
        text += f"; were there nothing but products of matrices, {first} would train {most:.1f} times the plain way"
    return text


def roofline(record: Record) -> pd.DataFrame:
    """The first row's training step for one image, by kinds of operations.

    flops, bytes: counted, of eager operations without fusion. limit: seconds at the measured rates. seconds:
    profiled. of the limit: limit / seconds; above 1 where caches or fusion spare what the count holds.
    """
    frame = pd.DataFrame(record["stages"]).set_index("kind")
    frame["of the limit"] = frame["limit"] / frame["seconds"].where(frame["seconds"] > 0)
    return frame


def stages(record: Record) -> pd.DataFrame:
    """`roofline` in the units that people read: GFLOP, MB and milliseconds."""
    table = roofline(record)
    return pd.DataFrame(
        {
            "GFLOP": table["flops"] / 1e9,
            "MB": table["bytes"] / 1e6,
            "limit (ms)": 1000 * table["limit"],
            "seen (ms)": 1000 * table["seconds"],
            "limit / seen": table["of the limit"],
        }
    )


def together(record: Record) -> pd.DataFrame:
    """What several processes train together: images a second, and how many times one's, medians over the rounds."""
    lines = {
        row: {
            "one alone": median(found["alone"]),
            f"{record['processes']} together": median(found["together"]),
            "times": ratios(found["together"], found["alone"]),
            "in the rounds": ", ".join(
                f"{b / a:.2f}" for a, b in zip(found["alone"], found["together"], strict=True)
            ),
        }
        for row, found in record["rows"].items()
    }
    return pd.DataFrame.from_dict(lines, orient="index").rename_axis("row")
