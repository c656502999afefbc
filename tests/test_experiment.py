"""What a notebook's parameters ask for, of a run and of a measurement."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
import pytest

from scanet import experiment
from scanet.files import UserError


@dataclass(frozen=True)
class Dials:
    persons: int = 8
    epochs: int = 1


def test_parameters_refuse_a_misspelt_name_and_leave_objects_alone() -> None:
    settings = experiment.parameters({"module": "BDMP", "seed": 3, "np": np, "_i": "", "In": [""], "epochs": None})
    assert (settings.module, settings.seed) == ("BDMP", 3)
    with pytest.raises(
        UserError, match=r"unknown parameter 'modul' .perhaps module.: allowed are module, preset, .*learning_rate"
    ):
        experiment.parameters({"module": "SSA", "modul": "BDMP"})


def test_parameters_leave_a_notebooks_own_lists_alone() -> None:
    """So that its first cells can be run again after the last."""
    runs = [np.zeros(1), "text"]
    assert experiment.parameters({"preset": "tiny", "runs": runs, "maps": {"SSA": runs}}).preset == "tiny"
    with pytest.raises(UserError, match="unknown parameter 'modules'"):
        experiment.parameters({"modules": ["SSA"]})
    with pytest.raises(UserError, match=r"epochs is \[1, 2\]"):
        experiment.parameters({"epochs": [1, 2]})


def test_a_notebook_may_leave_no_choice() -> None:
    assert experiment.parameters({"seed": 3}, module="ALL").module == "ALL"
    with pytest.raises(UserError, match="module is 'SSA', but this notebook always takes 'ALL': leave it out"):
        experiment.parameters({"module": "SSA"}, module="ALL")


def test_parameters_are_the_runs_or_the_measurements_own() -> None:
    given = {"preset": "tiny", "seed": 3, "persons": 4, "epochs": None, "pd": pd}
    settings, dials = experiment.measurement_parameters(given, Dials, ("soft", "SSA"))
    assert (settings.module, settings.seed, settings.epochs) == ("soft", 3, 2)
    assert dials == Dials(persons=4)
    # A dial comes before a run's setting of the same name.
    settings, dials = experiment.measurement_parameters({"preset": "tiny", "epochs": 9}, Dials)
    assert (settings.epochs, dials.epochs) == (2, 9)
    for name, value, sentence in [
        ("persons", 0, "persons is 0: allowed is a whole number from 1 on"),
        ("persons", "all", "persons is 'all': allowed is a whole number"),
        (
            "person",
            4,
            "unknown parameter 'person' .perhaps persons.: allowed are module, preset, seed, .*, persons, epochs",
        ),
        ("module", "BDMP", "module is 'BDMP': this notebook is for SSA, soft"),
    ]:
        with pytest.raises(UserError, match=sentence):
            experiment.measurement_parameters({"preset": "tiny", name: value}, Dials, ("SSA", "soft"))
