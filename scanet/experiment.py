"""What the notebooks begin with: their parameters checked, then runs, measurements and examples.

Beside `parameters`, `measurement_parameters` and `table_parameters` these are names of `scanet.config`,
`scanet.runs`, `scanet.measure.finished` and `scanet.report.examples`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

from scanet.config import Settings, refuse_unknown, refuse_unused, resolve, resolve_dials, with_module
from scanet.files import UserError
from scanet.measure.finished import (
    measure_attention,
    measure_gates,
    measure_gradients,
    measure_scales,
    measure_temperature,
)
from scanet.report.examples import examples, leg_to_head, normalised_errors, with_and_without_noise
from scanet.runs import final, run_or_load, trained_at

__all__ = [
    "examples",
    "final",
    "leg_to_head",
    "measure_attention",
    "measure_gates",
    "measure_gradients",
    "measure_scales",
    "measure_temperature",
    "measurement_parameters",
    "normalised_errors",
    "parameters",
    "run_or_load",
    "table_parameters",
    "trained_at",
    "with_and_without_noise",
    "with_module",
]


def parameters(namespace: Mapping[str, Any], **fixed: Any) -> Settings:
    """The settings that a notebook's parameters cell, and whatever papermill put after it, ask for.

    namespace: the notebook's `globals()`. Every public variable in it that holds a plain value counts as a
    parameter, so that a misspelt one is refused and not ignored. fixed: what the notebook leaves no choice of.
    """
    given = _plain(namespace)
    for name in given.keys() & fixed.keys():
        raise UserError(f"{name} is {given[name]!r}, but this notebook always takes {fixed[name]!r}: leave it out")
    return refuse_unused(resolve(**given, **fixed))


def measurement_parameters(
    namespace: Mapping[str, Any], kind: type, modules: Sequence[str] = ("SSA",)
) -> tuple[Settings, Any]:
    """As `parameters`, for a notebook that measures finished runs: the runs' settings, and the measurement's own.

    kind: the measurement's dials, a frozen dataclass with defaults; a parameter that has the name of one is that
    one, also where a run has a setting of that name. modules: the rows that the notebook can show, the first being
    the default.

    Raises:
        UserError: as `resolve`, and for a row that is not among `modules`.
    """
    given, own = _plain(namespace), [f.name for f in fields(kind)]
    refuse_unknown(given, [*(f.name for f in fields(Settings) if f.name not in own), *own])
    chosen = resolve_dials(kind, **{name: value for name, value in given.items() if name in own})
    values = {name: value for name, value in given.items() if name not in own}
    settings = refuse_unused(resolve(**{"module": modules[0]} | values))
    if settings.module not in modules:
        raise UserError(f"module is {settings.module!r}: this notebook is for {', '.join(modules)}")
    return settings, chosen


def table_parameters(namespace: Mapping[str, Any], *others: str) -> Settings:
    """As `parameters`, for a notebook that shows the finished runs of a whole preset: it takes the preset alone.

    others: names of what else it takes.
    """
    given = _plain(namespace)
    refuse_unknown(given, ["preset", *others])
    return resolve(**given)


def _plain(namespace: Mapping[str, Any]) -> dict[str, Any]:
    def plain(value: Any) -> bool:
        if isinstance(value, list | tuple | dict):  # a notebook's list of runs is no parameter
            return bool(value) and all(plain(i) for i in (value.values() if isinstance(value, dict) else value))
        return isinstance(value, str | int | float | bool | None)

    interactive = {"In", "Out"}
    return {
        name: value
        for name, value in namespace.items()
        if plain(value) and not name.startswith("_") and name not in interactive
    }
