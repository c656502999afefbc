"""Settings: presets and overrides, what is refused and with which words, and the learning-rate schedule."""

import dataclasses
import itertools
import math
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import scanet.config
from scanet.config import PRESETS, ROWS, Network, Settings, refuse_unused, resolve, with_module
from scanet.files import UserError
from scanet.train import learning_rate


def refusal(**given: Any) -> str:
    with pytest.raises(UserError) as caught:
        resolve(**given)
    return str(caught.value)


# ---- presets and overrides ----


def test_the_paper_preset_is_the_recipe_of_the_paper() -> None:
    """§3.1, §3.3 and, where the paper is silent, PyraNet."""
    s = resolve(module="Baseline", preset="paper")
    assert (s.input_size, s.heatmap_size, s.stacks, s.channels, s.learning_rate) == (256, 64, 2, 256, 2.5e-4)
    assert (s.epochs, s.batch_size, s.top_k, s.tau, s.sigma) == (250, 6, 8, 1.0, 1.75)
    assert (s.scale_jitter, s.rotation, s.rotation_probability, s.colour_jitter) == (0.25, 30.0, 0.4, 0.2)
    assert (s.dataset, s.target, s.tta, s.limit) == ("mpii", "subpixel", "flip", None)


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("module", ROWS)
def test_presets_resolve_for_every_row(preset: str, module: str) -> None:
    s = resolve(module=module, preset=preset, seed=3)
    assert (s.module, s.preset, s.seed, s.row) == (module, preset, 3, ROWS[module])
    assert {name: getattr(s, name) for name in PRESETS[preset]} == dict(PRESETS[preset])
    named = {"module", "preset", "seed", *PRESETS[preset]}
    rest = [f for f in dataclasses.fields(Settings) if f.name not in named]
    assert all(getattr(s, f.name) == f.default for f in rest)
    assert s.overrides() == {}
    assert s.resolution == s.input_size * 1.25
    shape = {name: getattr(s, name) for name in ("row", "stacks", "channels", "tau", "heatmap_std")}
    assert s.network(14) == Network(joints=14, **shape)


def test_overrides_replace_the_preset_and_none_leaves_it() -> None:
    s = resolve(module="ALL", preset="tiny", epochs=5, tau=0.5, stacks=None, tta=None)
    assert (s.epochs, s.tau, s.stacks, s.tta, s.batch_size) == (5, 0.5, 1, "flip", 8)
    assert s.overrides() == {"epochs": 5, "tau": 0.5}
    assert resolve(preset="tiny", epochs=2).overrides() == {}  # the preset's own value


def test_the_place_of_the_data_and_the_test_are_no_part_of_the_identity() -> None:
    here, there = (resolve(preset="tiny", data=place) for place in ("a", "b"))
    assert here.data == "a"
    assert here.identity() == there.identity()
    assert here.overrides() == {}
    assert "data" not in here.identity()
    for name, value in {"seed": 1, "module": "ALL", "clutter": 0.1, "limit": 5}.items():
        assert resolve(**{"preset": "tiny", name: value}).identity() != here.identity()
    photographs = [resolve(preset="lspet", clutter=clutter) for clutter in (0.1, 0.2)]  # nobody is drawn
    assert photographs[0].identity() == photographs[1].identity()
    assert photographs[0].overrides() == {}


@pytest.mark.parametrize("name", ROWS)
def test_full_names_of_rows(name: str) -> None:
    assert resolve(module=ROWS[name].title) == resolve(module=name)


@pytest.mark.parametrize(
    ("module", "name", "value"),
    [("MSFI", "tau", 0.5), ("soft", "attention_noise", False), ("MSFI", "attention_skip", True),
     ("SSA", "shared_messages", True), ("Baseline", "upsampling", "bilinear"), ("BDMP+SCA", "top_k", 4)],
)  # fmt: skip
def test_what_a_row_has_no_use_for_is_refused(module: str, name: str, value: object) -> None:
    with pytest.raises(UserError, match=f"{name} is {value!r}, and module {re.escape(module)} has no use for it"):
        refuse_unused(resolve(module=module, **{name: value}))
    assert refuse_unused(resolve(module=module)) == resolve(module=module)
    used = refuse_unused(resolve(module="ALL", **{name: value}))
    assert with_module(used, module) == resolve(module=module)
    assert with_module(used, "BDMP+SCA") == resolve(module="BDMP+SCA", **({} if name == "top_k" else {name: value}))


def test_how_people_are_drawn_is_no_setting_of_photographs() -> None:
    with pytest.raises(UserError, match=r"clutter is 0\.9, and data set lspet has no use for it: leave it out"):
        refuse_unused(resolve(preset="lspet-small", clutter=0.9))
    assert refuse_unused(resolve(preset="synthetic", clutter=0.9)).clutter == 0.9


def test_rows_of_the_paper() -> None:
    def modules(name: str) -> tuple[bool, str, bool, str, bool]:
        row = ROWS[name]
        return row.msfi, row.messages, row.sacwa, row.attention, row.hard_mining

    assert [name for name, row in ROWS.items() if row.block] == ["Block"]
    assert [name for name, row in ROWS.items() if not row.gate] == ["encoder"]
    assert {name: modules(name) for name, row in ROWS.items() if row.place != "ours"} == {
        "Baseline": (False, "none", False, "none", False),
        "Block": (False, "none", False, "none", False),
        "MSFI": (True, "none", False, "none", False),
        "BDMP": (True, "both", False, "none", False),
        "SACWA": (True, "none", True, "none", False),
        "SSA": (True, "none", False, "sharper", False),
        "SCA": (True, "none", True, "sharper", False),
        "BDMP+SCA": (True, "both", True, "sharper", False),
        "ALL": (True, "both", True, "sharper", True),
        "soft": (True, "none", False, "soft", False),
        "top-down": (True, "top-down", False, "none", False),
        "bottom-up": (True, "bottom-up", False, "none", False),
        "encoder": (True, "none", True, "none", False),
        "rescaled": (True, "none", False, "rescaled", False),
        "stretched": (True, "none", False, "stretched", False),
    }


def test_whole_numbers_pass_where_numbers_are_wanted() -> None:
    s = resolve(preset="tiny", tau=2, learning_rate=1, rotation=0)
    assert (s.tau, s.learning_rate, s.rotation) == (2.0, 1.0, 0.0)
    assert {type(v) for v in (s.tau, s.learning_rate, s.rotation)} == {float}
    assert s == resolve(preset="tiny", tau=2.0, learning_rate=1.0, rotation=0.0)


def test_pytorch_s_own_first_weights_can_be_asked_for() -> None:
    """In the presets that set others, where None says that nothing was given."""
    assert resolve(preset="quick", heatmap_std=None).heatmap_std == 0.001
    s = resolve(preset="quick", heatmap_std="default")
    assert s.heatmap_std is None
    assert s.overrides() == {"heatmap_std": None}
    assert resolve(preset="paper", heatmap_std="default") == resolve(preset="paper")
    assert refusal(heatmap_std="x") == "heatmap_std is 'x': allowed is a number from 0.0 to 1.0, or 'default'"


# ---- refusals ----


def test_unknown_names_list_what_is_allowed() -> None:
    message = refusal(module="SSSA")
    assert "'SSSA'" in message
    assert all(name in message and row.title in message for name, row in ROWS.items())
    message = refusal(preset="foo")
    assert "'foo'" in message
    assert all(name in message for name in PRESETS)
    message = refusal(modul="SSA")
    assert "'modul'" in message
    assert all(f.name in message for f in dataclasses.fields(Settings))
    assert refusal(dataset="coco") == "dataset is 'coco': allowed are synthetic, lspet, mpii"
    assert refusal(tta=["flip"]) == "tta is ['flip']: allowed are none, flip, six-scale"
    assert refusal(target=1) == "target is 1: allowed are subpixel, floor"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"epochs": "two"}, "epochs is 'two': allowed is a whole number from 1 to 100000"),
        ({"epochs": 2.0}, "epochs is 2.0: allowed is a whole number from 1 to 100000"),
        ({"epochs": True}, "epochs is True: allowed is a whole number from 1 to 100000"),
        ({"tau": True}, "tau is True: allowed is a number from 0.01 to 100.0"),
        ({"tau": "1"}, "tau is '1': allowed is a number from 0.01 to 100.0"),
        ({"data": 3}, "data is 3: allowed is text"),
        ({"limit": "all"}, "limit is 'all': allowed is a whole number from 2 to 1000000000"),
        ({"seed": -1}, "seed is -1: allowed is a value from 0 to 2147483647"),
        ({"epochs": 0}, "epochs is 0: allowed is a value from 1 to 100000"),
        ({"tau": 0.001}, "tau is 0.001: allowed is a value from 0.01 to 100.0"),
        ({"tau": math.nan}, "tau is nan: allowed is a value from 0.01 to 100.0"),
        ({"learning_rate": math.inf}, "learning_rate is inf: allowed is a value from 1e-09 to 1.0"),
        ({"scale_jitter": 0.3}, "scale_jitter is 0.3: allowed is a value from 0.0 to 0.25"),
        ({"input_size": 100}, "input_size is 100: allowed are multiples of 64"),
        ({"channels": 24}, "channels is 24: allowed are multiples of 16"),
    ],
    ids=lambda value: "" if isinstance(value, str) else "=".join(str(part) for part in next(iter(value.items()))),
)
def test_wrong_values_are_refused(given: dict[str, Any], message: str) -> None:
    assert refusal(preset="tiny", **given) == message


def test_every_bound_is_allowed_itself() -> None:
    multiples = scanet.config._MULTIPLES
    for name, (low, high) in scanet.config._RANGES.items():
        for value in (low, high):
            assert getattr(resolve(preset="tiny", module="ALL", **{name: value}), name) == value
        step = multiples.get(name, 1) if isinstance(low, int) else 1e-6
        for beyond in (low - step, high + step):
            assert refusal(preset="tiny", **{name: beyond}).startswith(f"{name} is {beyond!r}: allowed")


def test_settings_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        resolve().epochs = 3
    with pytest.raises(TypeError):
        ROWS["new"] = ROWS["ALL"]


def test_settings_need_no_torch() -> None:
    """So that a wrong parameter is told at once: only the standard library is imported."""
    code = (
        "import sys; before = set(sys.modules); import scanet.config; scanet.config.resolve(); "
        "print(*{m.split('.')[0] for m in set(sys.modules) - before} - sys.stdlib_module_names)"
    )
    folder = Path(scanet.config.__file__).parents[1]
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=folder)
    assert output.stdout.split() == ["scanet"]


# ---- the learning rate ----


def drops(epochs: int) -> list[int]:
    """Epochs, from 1, that start with a tenth of the rate before."""
    rates = [learning_rate(epoch, epochs, 1.0) for epoch in range(1, epochs + 1)]
    assert rates[0] == 1.0
    found = []
    for epoch, (before, after) in enumerate(itertools.pairwise(rates), start=2):
        times = round(math.log10(before / after))
        assert after == pytest.approx(before / 10**times)
        found += [epoch] * times
    return found


def test_schedule_of_the_paper() -> None:
    assert drops(250) == [150, 170, 200]
    rates = [learning_rate(epoch, 250, 2.5e-4) for epoch in (1, 149, 150, 169, 170, 199, 200, 250)]
    assert rates == pytest.approx([2.5e-4, 2.5e-4, 2.5e-5, 2.5e-5, 2.5e-6, 2.5e-6, 2.5e-7, 2.5e-7], rel=1e-12)


def test_schedule_of_other_lengths() -> None:
    assert drops(1) == []
    assert drops(500) == [299, 339, 399]  # after twice 149, 169 and 199 whole epochs
    assert drops(25) == [16, 18, 21]
    assert drops(10) == [7, 8, 9]


@settings(deadline=None, max_examples=40)
@given(st.integers(10, 2000))
def test_any_length_has_three_drops_after_the_same_share(epochs: int) -> None:
    found = drops(epochs)
    assert len(found) == 3
    for epoch, drop in zip(found, (150, 170, 200), strict=True):
        passed, of_the_paper = (epoch - 1) * 250, (drop - 1) * epochs  # shares of the run, exactly
        assert 0 <= passed - of_the_paper < 250
