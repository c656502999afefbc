"""Tables of a benchmark's record: rates, ratios beside their targets, and the roofline. Records in, frames out."""

from statistics import median
from typing import Any

import pandas as pd

Record = dict[str, Any]

#: How much slower than its operations say a row may be.
ALLOWANCE = 1.15


def rates(record: Record) -> pd.DataFrame:
    """Images a second, medians over the rounds; memory that a training step takes on top, GiB; GFLOP forward."""
    lines = {}
    for row, found in record["rows"].items():
        line = {name: median(values) for name, values in found.items() if isinstance(values, list)}
        peak = found["peak_memory"]
        lines[row] = {
            **line,
            "peak memory (GiB)": None if peak is None else peak / 2**30,
            "GFLOP": found["flops"] / 1e9,
        }
    return pd.DataFrame.from_dict(lines, orient="index").rename_axis("row")


def text(record: Record) -> str:
    """A record as the command line prints it."""
    if "processes" in record:
        return f"Images a second\n{_printed(together(record))}"
    met = [
        f"{what}: {line['value']:.3g}, {line['target']}: {'met' if line['met'] else 'missed: ' + line['why']}"
        for what, line in targets(record).iterrows()
    ]
    machine = record["machine"]
    matrix = ", ".join(f"{name} {rate / 1e9:.0f} GFLOP/s" for name, rate in machine["matrix"].items() if rate)
    parts = [
        f"Images a second\n{_printed(rates(record))}",
        "\n".join(met),
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
    """What was to be reached, what was, and why not: a line for each target that the record can speak of."""
    rows, others = record["rows"], record["others"]
    first = next(iter(rows))
    cuda = not record["device"].startswith(("cpu", "mps"))
    lines: list[dict[str, Any]] = []

    def line(what: str, value: float, target: float, *, least: bool, why: str = "") -> None:
        met = value >= target if least else value <= target
        bound = f"at least {target:g}" if least else f"at most {target:.3g}"
        lines.append({"what": what, "value": value, "target": bound, "met": met, "why": "" if met else why})

    for row, found in rows.items():
        if "training, plain" in found:
            ratio = ratios(found["training, from the store"], found["training, plain"])
            most = ceiling(record, 3 * found["flops"], [1 / rate for rate in found["training, plain"]])
            why = _why(record, most)
            line(f"training, times the plain way: {row}", ratio, 5.0 if cuda else 3.0, least=True, why=why)
            if "training, compiled" in found:
                ratio = ratios(found["training, compiled"], found["training, plain"])
                line(f"the same, by torch.compile: {row}", ratio, 5.0 if cuda else 3.0, least=True, why=why)
    fixed = rows[first]["training, fixed batch"]
    if cuda:  # the device works while the next batch is made
        share = ratios(fixed, rows[first]["training, from the store"]) - 1
    else:  # one after the other
        share = median(seconds * rate for seconds, rate in zip(others["input"], fixed, strict=True))
    line(
        "input's time over the step's on a batch in memory", share, 0.05, least=False, why="the network is too small"
    )
    if "six scales, plain" in others:
        ratio = ratios(others["six scales, plain"], others["six scales"])
        most = ceiling(record, 12 * rows[first]["flops"], others["six scales, plain"])
        line("six scales and flip, times the plain way", ratio, 3.0, least=True, why=_why(record, most))
    line("PCKh of 2,958 persons (ms)", 1000 * median(others["PCKh"]), 5.0, least=False, why="a busy processor")
    for row, found in rows.items():
        if row != first:
            time = ratios(fixed, found["training, fixed batch"])
            allowed = ALLOWANCE * found["flops"] / rows[first]["flops"]
            why = f"{time / allowed - 1:.0%} over: its layers are smaller, or move more bytes for an operation"
            line(f"time of a step over {first}'s: {row}", time, allowed, least=False, why=why)
    return pd.DataFrame(lines).set_index("what")


def ceiling(record: Record, flops: float, plain: list[float]) -> float:
    """What the ratio to the plain way's seconds would be if only matrices took time, at the measured rate."""
    matrix = record["machine"]["matrix"]
    return median(plain) * (matrix["bf16"] or matrix["fp32"]) / flops


def _why(record: Record, most: float) -> str:
    """Where the time of a training step goes, from the profile. most: the ratio at the machine's limit."""
    stages = roofline(record)
    total = stages["seconds"].sum()
    longest = stages["seconds"].idxmax()
    rate = record["machine"]["matrix"]
    text = (
        f"{stages.loc[longest, 'seconds'] / total:.0%} of the step is {longest}, at "
        f"{stages.loc[longest, 'of the limit']:.0%} "
        f"of the machine's limit; all of it together is at {stages['limit'].sum() / total:.0%}; with nothing but "
        f"products of matrices at the measured rate the ratio would be {most:.1f}"
    )
    if rate["bf16"]:
        text += f"; bf16 multiplies matrices {rate['bf16'] / rate['fp32']:.1f} times as fast as fp32 here"
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
    """What several processes train together, medians over the rounds: images a second, and how many times one's."""
    lines = {
        row: {
            "one alone": median(found["alone"]),
            f"{record['processes']} together": median(found["together"]),
            "times": ratios(found["together"], found["alone"]),
        }
        for row, found in record["rows"].items()
    }
    return pd.DataFrame.from_dict(lines, orient="index").rename_axis("row")
