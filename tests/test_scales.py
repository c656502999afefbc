"""Persons of another size at testing: the crop's width, what is measured, and what is shown of it."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch

from scanet.config import resolve
from scanet.data.loader import Persons
from scanet.experiment import run_or_load
from scanet.inference import predict
from scanet.measure import scales
from scanet.measure.finished import measure_scales
from scanet.pckh import PCK
from scanet.report import figures, tables
from scanet.runs import Run

pytestmark = pytest.mark.usefixtures("at_home")

CPU = torch.device("cpu")


@pytest.fixture
def trained(at_home: None) -> Run:  # noqa: ARG001
    return run_or_load(resolve(module="MSFI", preset="tiny"), progress=False)


@pytest.mark.parametrize("tta", ["none", "six-scale"])
def test_a_wider_crop_is_a_person_with_a_larger_box(trained: Run, tta: str) -> None:
    assert trained.model is not None
    assert trained.store is not None
    size, rows = trained.settings.input_size, trained.store.indices("valid")
    persons = Persons(trained.store, rows, CPU)
    wide = predict(trained.model, persons, size=size, tta=tta, boxes=2.0)
    persons.scale *= 2  # exact, as is the product of factors
    expected = predict(trained.model, persons, size=size, tta=tta)
    assert np.array_equal(wide.joints, expected.joints)
    persons.scale /= 2
    assert not np.allclose(predict(trained.model, persons, size=size, tta=tta).joints, wide.joints, atol=1)


def test_the_table_by_hand(trained: Run) -> None:
    assert trained.model is not None
    assert trained.store is not None
    one = measure_scales(trained, scales.Dials())
    table = one.table()
    assert one.measurement.name == "tiny/scales/MSFI-s0"
    assert table["size"].tolist() == list(scales.SIZES)
    assert table["module"].unique().tolist() == ["MSFI"]
    rows = trained.record.predictions()["row"]
    assert table["persons"].unique().tolist() == [len(rows)]
    assert table.set_index("size").loc[1, "pckh"] == trained.record.scores("none").row("plain")["Mean"]
    found = predict(
        trained.model, Persons(trained.store, rows, CPU), size=trained.settings.input_size, tta="none", boxes=2
    )
    metric = PCK(trained.store.skeleton)
    metric.update(found.joints, trained.store.joints[rows], trained.store.head_size[rows])
    assert table.set_index("size").loc[0.5, "pckh"] == metric.compute().row("plain")["Mean"]
    some = [k for k in range(len(rows)) if k != 1]  # there are fewer persons than parts: each is one of its own
    metric = PCK(trained.store.skeleton)
    metric.update(found.joints[some], trained.store.joints[rows[some]], trained.store.head_size[rows[some]])
    assert table.set_index("size").loc[0.5, "pckh without 1"] == metric.compute().row("plain")["Mean"]
    assert f"pckh without {len(rows) - 1}" in table
    assert f"pckh without {len(rows)}" not in table
    few = measure_scales(trained, scales.Dials(persons=4))
    assert few.measurement.name == "tiny/scales/MSFI-s0-persons=4"


def test_the_band_is_what_training_draws() -> None:
    """A crop of 1 + jitter boxes shows the person smaller by that."""
    assert scales.trained(resolve(scale_jitter=0.25)) == pytest.approx((0.8, 4 / 3))
    assert scales.trained(resolve(scale_jitter=0.0)) == (1, 1)


def test_table_and_figure_of_two_rows() -> None:
    pckh = {"Baseline": {0.5: 40.0, 1.0: 80.0}, "MSFI": {0.5: 46.0, 1.0: 81.0}}
    lines = [
        {"module": module, "size": size, "seed": seed, "pckh": value + seed}
        for module, values in pckh.items()
        for size, value in values.items()
        for seed in (0, 1)
    ]
    alone = {"module": "MSFI", "size": 1.0, "seed": 2, "pckh": 0.0}  # a seed that the other row lacks
    table = pd.DataFrame([*lines, alone])
    found = tables.by_size(table, "Baseline")
    assert found.index.tolist() == ["0.5", "1"]
    assert found.drop(columns="±").to_dict("list") == {
        "Baseline": [40.5, 80.5],
        "MSFI": [46.5, 81.5],
        "Δ": [6, 1],
        "Δ less that at 1": [5, 0],
    }
    assert found["±"].iloc[0] == 0  # both seeds gain the same
    assert np.isnan(found["±"].iloc[1])  # by definition
    small = (table["size"] < 1) & (table["module"] == "MSFI")
    parts = {f"pckh without {k}": table["pckh"] + sign * small for k, sign in enumerate((-1, 1))}
    assert tables.by_size(table.assign(**parts), "Baseline")["±"].iloc[0] == pytest.approx(1.96, rel=1e-4)
    scores, gains = figures.by_size(table[table["seed"] < 2], "Baseline", (0.8, 4 / 3)).axes
    assert [line.get_ydata().tolist() for line in scores.lines] == [[40.5, 80.5], [46.5, 81.5]]
    assert gains.lines[0].get_ydata().tolist() == [6, 1]
    plt.close("all")
