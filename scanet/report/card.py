"""The card of an exported model: data, recipe, metrics and limits, from the run's record. Text only, no files."""

from pathlib import Path
from textwrap import fill

from scanet.pckh import CONVENTION, Scores
from scanet.report import tables
from scanet.results import Record

#: The first line of every card, by which an older one is known.
TITLE = "# Model card: SCANet"
WIDTH = 118

_DATA = {
    "lspet": """\
[Leeds Sports Pose Extended](http://sam.johnson.io/research/lspet.html) (Johnson and Everingham, *Learning Effective
Human Pose Estimation from Inaccurate Annotation*, CVPR 2011): photographs from Flickr of parkour, gymnastics and
athletics, with joints marked by untrained people.

**Licence.** Neither the data set's page nor its README states one; they ask for the citation above. The photographs
belong to those who took them; apart from the examples that pages of the book show, they are not part of this
repository. The code here is under the MIT licence, and so are these weights as far as they are ours to license. But
nobody has granted rights in the photographs that they were learnt from, and whether that matters for a use of the
weights is not settled. For research this is common practice. For anything else, get advice, or train on data whose
licence you know.""",
    "mpii": """\
[MPII Human Pose](http://human-pose.mpi-inf.mpg.de) (Andriluka et al., CVPR 2014): frames of videos of everyday
activities. The photographs are not part of this repository, but for examples in the book. Read the data set's terms
before you use the weights.""",
    "synthetic": """\
Drawn people, made by this package: **synthetic**. The model has seen no photograph and is of little use on one.""",
}


def card(record: Record, full: Scores, half: Scores, size: int, output: Path | None) -> str:
    """Markdown. full, half: flip-test scores with 32-bit and with 16-bit weights. size: of the file, bytes.

    output: the file; None for the one that comes with the package.
    """
    run, settings = record.run, record.settings
    name, argument, option = "scanet.safetensors", "", ""
    if output is not None:
        name, argument, option = output.name, f'"{output.name}"', f" --model {output.name}"
    rows = {"32-bit weights": full.row(CONVENTION), "16-bit weights, this file": half.row(CONVENTION)}
    header = "| PCKh@0.5, flip test | " + " | ".join(tables.COLUMNS) + " |"
    lines = [
        f"| {name} | " + " | ".join(f"{row[c]:.2f}" for c in tables.COLUMNS) + " |" for name, row in rows.items()
    ]
    table = "\n".join([header, "|---" * (len(tables.COLUMNS) + 1) + "|", *lines])
    facts = "\n".join(f"| {name} | {value} |" for name, value in tables.facts(record).items())
    mean = half.row(CONVENTION)["Mean"]
    from_joints = settings["dataset"] == "lspet"
    whom = "the validation persons" if record.held_out else "persons it was TRAINED ON (no validation result)"
    parts = [
        TITLE,
        f"`{name}`, {size / 1e6:.2f} MB: the network of the row {run['title']} with {settings['stacks']} "
        f"stacks and {settings['channels']} channels, {run['network']['parameters']:,} parameters, "
        f"{run['network']['joints']} joints, for pictures of {settings['input_size']} x {settings['input_size']} "
        f"pixels. `scanet.load_model({argument})` loads it and `scanet predict PHOTO{option}` uses it. "
        f"`scanet export` wrote this card from the run's record: no number was typed.",
        "## Data",
        _DATA[settings["dataset"]],
        f"{run['data']['train']} persons were for training, {run['data']['valid']} for validation.",
        "## Metrics",
        f"On {whom}, {half.persons} of them scored, plain mean over the joints, percent. The head "
        f"size is {'the distance from neck to head top' if from_joints else 'that of the head rectangle'}, and "
        f"the person's box comes {'from the annotated joints' if from_joints else 'with the annotation'}, so it is "
        f"better placed than a detector's.",
        table,
        f"Half precision changes the mean by {mean - full.row(CONVENTION)['Mean']:+.3f} points.",
        "## Recipe",
        f"| | |\n|---|---|\n{facts}",
        "## Limits",
        f"- One person at a time, in a box that somebody else has to find. Where people touch, limbs go astray.\n"
        f"- About {100 - mean:.0f} of 100 joints are not found within half a head's length; hips, knees and ankles "
        f"are {'worse' if _legs(half) < mean else 'no worse'} than the mean.\n"
        f"- The confidence is the height of the heat map's peak, not a probability.\n"
        f"- Other people, clothes, places and views than the data's have not been measured, and nothing has been "
        f"measured by skin colour, age or body shape.\n"
        f"- Not for identifying people, for surveillance, or for any decision about a person.",
    ]
    return "\n\n".join(_wrapped(part) for part in parts) + "\n"


def _wrapped(part: str) -> str:
    """Lines of prose of no more than `WIDTH` characters; tables as they are."""
    lines = [] if part.startswith("|") else part.split("\n")
    if not lines or (len(lines) > 1 and not part.startswith("- ")):
        return part
    return "\n".join(fill(line, WIDTH, subsequent_indent="  " * line.startswith("- ")) for line in lines)


def _legs(scores: Scores) -> float:
    row = scores.row(CONVENTION)
    return (row["Hip"] + row["Knee"] + row["Ank."]) / 3
