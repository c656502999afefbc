"""MPII's annotations in the json of HRNet, a second reading to hold the package's readers against."""

import json
from collections import Counter
from pathlib import Path

import numpy as np

from scanet.data.person import Person


def read_json(path: Path) -> list[Person]:
    """The validation persons of a file. The format has raw centre and scale counted from 1, no head size (NaN) and no
    person's number (they are counted within their image), and does not tell occluded joints (all are visible).

    Source: leoxiaobin/deep-high-resolution-net.pytorch.
    """
    persons = []
    counter: Counter[str] = Counter()
    for record in json.loads(path.read_text(encoding="utf-8")):
        known = np.array(record["joints_vis"], float).reshape(16) > 0
        joints = np.where(known[:, None], np.array(record["joints"], float).reshape(16, 2) - 1, np.nan)
        (x, y), scale = record["center"], record["scale"]
        center = (x - 1.0, y - 1.0 + 15.0 * scale)
        index = counter[record["image"]]
        persons.append(Person(record["image"], index, "valid", center, 1.25 * scale, joints, known, np.nan))
        counter[record["image"]] += 1
    return persons
