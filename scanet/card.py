"""The card of an exported model: data, recipe, metrics and limits, from the run's record. Text only, no files."""

from scanet import tables
from scanet.pckh import Scores
from scanet.results import Record

#: The first line of every card, by which an older one is known.
TITLE = "# Model card: SCANet"

_DATA = {
    "lspet": """\
[Leeds Sports Pose Extended](http://sam.johnson.io/research/lspet.html) (Johnson and Everingham, *Learning Effective
Human Pose Estimation from Inaccurate Annotation*, CVPR 2011): photographs from Flickr of parkour, gymnastics and
athletics, with joints marked by untrained people.

**Licence.** Neither the data set's page nor its README states one; they ask for the citation above. The photographs
belong to those who took them and are not part of this repository. The code here is under the MIT licence, and so are
these weights as far as they are ours to license; but nobody has granted rights in the photographs that they were learnt
from, and whether that matters for a use of the weights is not settled. For research this is common practice. For
anything else, get advice or train on data whose licence you know.""",
    "mpii": """\
[MPII Human Pose](http://human-pose.mpi-inf.mpg.de) (Andriluka et al., CVPR 2014): frames of videos of everyday
activities. The photographs are not part of this repository; read the data set's terms before you use these weights for
anything but research.""",
    "synthetic": """\
Drawn people, made by this package: **synthetic**. There is no photograph in it, and the model is of no use on one.""",
}


def card(record: Record, full: Scores, half: Scores, size: int) -> str:
    """Markdown. full, half: flip-test scores with 32-bit and with 16-bit weights. size: of the file, bytes."""
    run, settings = record.run, record.settings
    rows = {"32-bit weights": full.row(tables.CONVENTION), "16-bit weights, this file": half.row(tables.CONVENTION)}
    header = "| PCKh@0.5, flip test | " + " | ".join(tables.COLUMNS) + " |"
    lines = [f"| {name} | " + " | ".join(f"{row[c]:.2f}" for c in tables.COLUMNS) + " |" for name, row in rows.items()]
    table = "\n".join([header, "|---" * (len(tables.COLUMNS) + 1) + "|", *lines])
    lost = full.row(tables.CONVENTION)["Mean"] - half.row(tables.CONVENTION)["Mean"]
    facts = "\n".join(f"| {name} | {value} |" for name, value in tables.facts(record).items())
    return f"""\
{TITLE}

`scanet.safetensors`, {size / 1e6:.2f} MB: the network of the row {run["title"]} with {settings["stacks"]} stacks and
{settings["channels"]} channels, {run["network"]["parameters"]:,} parameters, {run["network"]["joints"]} joints, for
pictures of {settings["input_size"]} x {settings["input_size"]} pixels. `scanet.load_model()` loads it and
`scanet predict PHOTO` uses it. This card was written by `scanet export` from the run's record; no number in it was typed.

## Data

{_DATA[settings["dataset"]]}

{run["data"]["train"]} persons for training, {run["data"]["valid"]} for validation.

## Metrics

On the validation persons, {half.persons} of them scored, plain mean over the joints, percent. PCKh's head size is
{"the distance from neck to head top" if settings["dataset"] == "lspet" else "the head rectangle's"}, and the person's
box comes {"from the annotated joints" if settings["dataset"] == "lspet" else "with the annotation"}, so it is better
placed than a detector's.

{table}

Half precision changes the mean by {-lost:+.3f} points.

## Recipe

| | |
|---|---|
{facts}

## Limits

- One person at a time, in a box that somebody else has to find. Where two people touch, limbs go to the wrong one.
- The scores above say how often a joint is found within half a head's length; about
  {100 - half.row(tables.CONVENTION)["Mean"]:.0f} of 100 joints are not. Hips, knees and ankles are
  {"worse" if _legs(half) < half.row(tables.CONVENTION)["Mean"] else "no worse"} than the mean.
- The confidence is the height of the heat map's peak, not a probability.
- {"Sports people, mostly young, outdoors or in a gym; other" if settings["dataset"] == "lspet" else "Other"} people,
  clothes and views than the data's have not been measured. Nothing has been measured by skin colour, age or body shape.
- Not for identifying people, for surveillance, or for any decision about a person.
"""


def _legs(scores: Scores) -> float:
    row = scores.row(tables.CONVENTION)
    return (row["Hip"] + row["Knee"] + row["Ank."]) / 3
