"""Settings: Table 2's rows, presets, and the check of everything that a user can set. Imports no torch."""

import dataclasses
import difflib
import types
import typing
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from scanet.files import UserError

Attention = Literal["none", "sharper", "soft", "rescaled", "stretched"]
Messages = Literal["none", "both", "top-down", "bottom-up"]
Place = Literal["Table 2", "§3.3.4", "Fig. 4", "a control", "ours"]  # "ours": a row of one's own
DatasetName = Literal["synthetic", "lspet", "mpii"]
Target = Literal["subpixel", "floor"]
Border = Literal["empty", "partial"]
Tta = Literal["none", "flip", "six-scale"]
Schedule = Literal["drops", "linear", "constant"]
TrainOn = Literal["train", "train+valid"]
AttentionPlace = Literal["output", "features"]
TestMap = Literal["noise-free", "mean"]
Upsampling = Literal["nearest", "bilinear"]

STRIDE = 4  # pixels of the network's input to a cell of its heat maps


def stored_resolution(input_size: int) -> int:
    """Stored pixels along a person's box: a quarter more than the network sees, for crops that zoom in."""
    return input_size * 5 // 4


@dataclass(frozen=True, kw_only=True)
class Row:
    """A row of Table 2: which of the paper's modules are in the network."""

    title: str
    place: Place = "Table 2"
    msfi: bool = True
    block: bool = False  # of a row without MSFI: the residual block that all the others have
    messages: Messages = "none"  # BDMP's: fine to coarse is "top-down" (§2.1)
    sacwa: bool = False
    gate: bool = True  # of SACWA; without it the encoder is left
    attention: Attention = "none"
    hard_mining: bool = False
    # Raised by one when the same settings begin to give other weights: records of another recipe are old.
    # tests/test_recipe.py compares short runs with stored losses and says when that is due. (fp32 logits raised it
    # where Eq. (5) is used; for a softmax, of "soft" and "rescaled", they change rounding alone.)
    recipe: int = 1


#: Every configuration of §3.3, by the short name that `-p module` takes; the full names work too.
ROWS: Mapping[str, Row] = types.MappingProxyType(
    {
        "Baseline": Row(title="Baseline", msfi=False),
        "Block": Row(title="Baseline+block", place="a control", msfi=False, block=True),
        "MSFI": Row(title="MSFI"),
        "BDMP": Row(title="MSFI+BDMP", messages="both"),
        "SACWA": Row(title="MSFI+SACWA", sacwa=True),
        "SSA": Row(title="MSFI+SSA", attention="sharper", recipe=2),
        "SCA": Row(title="MSFI+SCA", place="§3.3.4", sacwa=True, attention="sharper", recipe=2),
        "BDMP+SCA": Row(title="MSFI+BDMP+SCA", messages="both", sacwa=True, attention="sharper", recipe=2),
        "ALL": Row(title="MSFI+ALL", messages="both", sacwa=True, attention="sharper", hard_mining=True, recipe=3),
        "soft": Row(title="MSFI+soft", place="Fig. 4", attention="soft"),
        "top-down": Row(title="MSFI+top-down", place="a control", messages="top-down"),
        "bottom-up": Row(title="MSFI+bottom-up", place="a control", messages="bottom-up"),
        "encoder": Row(title="MSFI+encoder", place="a control", sacwa=True, gate=False),
        "rescaled": Row(title="MSFI+rescaled", place="a control", attention="rescaled"),
        "stretched": Row(title="MSFI+stretched", place="a control", attention="stretched", recipe=2),
    }
)


def compared_with(module: str) -> str:
    """The row that a row is compared with: all have MSFI, and MSFI itself the Baseline."""
    return "Baseline" if module == "MSFI" else "MSFI"


@dataclass(frozen=True, kw_only=True)
class Network:
    """Shape of the network. Defaults are the paper's ablation (§3.1, §3.3)."""

    row: Row = ROWS["Baseline"]
    joints: int = 16
    stacks: int = 2  # §3.3.1
    channels: int = 256  # §2.1; the reduced features have an eighth of it: 256 -> 32
    tau: float = 1.0  # §3.3.3
    attention_place: AttentionPlace = "output"  # this and all below: see Settings
    attention_skip: bool = False
    test_map: TestMap = "noise-free"
    shared_messages: bool = False
    upsampling: Upsampling = "nearest"
    heatmap_std: float | None = None


#: Settings that only some rows have a use for.
USES: Mapping[str, Callable[[Row], bool]] = types.MappingProxyType(
    {
        **dict.fromkeys(("tau", "attention_noise", "test_map"), lambda row: row.attention == "sharper"),
        **dict.fromkeys(("attention_place", "attention_skip"), lambda row: row.attention != "none"),
        "shared_messages": lambda row: row.messages != "none",
        "upsampling": lambda row: row.msfi,
        "top_k": lambda row: row.hard_mining,
    }
)

#: Settings that say how synthetic persons are drawn.
_SYNTHETIC = ("synthetic_train", "synthetic_valid", "part_scale", "clutter")


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Everything that decides a run. Defaults are the recipe of §3.1 and, where it is silent, of PN and PHT."""

    module: str
    preset: str
    seed: int = 0
    # Data
    dataset: DatasetName = "mpii"
    data: str | None = None  # a folder or a store; None: the preset's own
    limit: int | None = None  # use only the first so many persons of each split
    train_on: TrainOn = "train"  # with the validation persons too for a submission: no validation result then
    synthetic_train: int = 3500  # persons to draw, of the synthetic set only, as are the next three
    synthetic_valid: int = 500
    part_scale: float = 0.5  # near parts drawn larger, 0 to 1
    clutter: float = 0.5  # limb-like distractors and other people, 0 to 1
    input_size: int = 256  # §3.1, pixels
    # Network
    stacks: int = 2  # §3.3.1
    channels: int = 256  # §2.1
    tau: float = 1.0  # §3.3.3
    # Where the paper is silent or has two readings; the specification curve of `choices` varies them
    attention_place: AttentionPlace = "output"  # SSA behind the output layers (§2.3) or before them (§2)
    attention_skip: bool = False  # add the features that were attended to: x + x * map
    attention_noise: bool = True  # Eq. (8) in training
    test_map: TestMap = "noise-free"  # in testing; "mean": the expectation of the noisy map
    shared_messages: bool = False  # one H and one G for all levels of Eq. (1) and (2)
    upsampling: Upsampling = "nearest"  # of F22 .. F24
    # Standard deviation of the heat-map convolutions' initial weights (paper silent). None: PyTorch's default, which
    # is Torch7's; HR takes 0.001, and a run of a few thousand images gains much from it. `resolve` takes
    # "default" for None, since there a parameter that is None is one that was not given.
    heatmap_std: float | None = None
    # Recipe
    epochs: int = 250  # paper silent: PN's script
    batch_size: int = 6  # PN
    learning_rate: float = 2.5e-4  # §3.1
    schedule: Schedule = "drops"  # §3.1's three drops; linearly to zero, for runs of a minute; or none
    sync_batch_norm: bool = False  # of several GPUs: statistics of the whole batch
    compiled: bool = False  # torch.compile: steps may be faster, after minutes; no part of a run's identity
    top_k: int = 8  # joints kept by hard mining, the row ALL only (paper silent: CPN)
    # The final model's second stage (§3.1 says "finetuned" and no more), which makes them its epochs and rate: a few
    # epochs at the rate that §3.1's schedule ends with.
    finetune_epochs: int = 10
    finetune_rate: float = 2.5e-7
    # Augmentation (§3.1 names rotation, scaling and colour; the numbers are PN's)
    scale_jitter: float = 0.25
    rotation: float = 30.0  # degrees
    rotation_probability: float = 0.4
    colour_jitter: float = 0.2
    # Targets (paper silent: size and shape are PHT's, see scanet.data.heatmaps)
    sigma: float = 1.75  # heat-map cells
    target: Target = "subpixel"
    border: Border = "empty"  # of a joint just beyond the map: an empty map, or the part of its Gaussian in it (PHT)
    # Evaluation, which is no part of a run's identity: scores by another tta are added to the finished run's record
    tta: Tta = "flip"

    @property
    def row(self) -> Row:
        return ROWS[self.module]

    @property
    def heatmap_size(self) -> int:
        return self.input_size // STRIDE

    @property
    def resolution(self) -> int:
        return stored_resolution(self.input_size)

    def network(self, joints: int) -> Network:
        shared = {f.name: getattr(self, f.name) for f in dataclasses.fields(Network) if f.name != "joints"}
        return Network(joints=joints, **shared)

    def overrides(self, experiment: str = "ablation") -> dict[str, Any]:
        """What differs from the preset, by name: in no canonical run, and part of a run's folder name."""
        if experiment == "final":
            stages = final_stages(resolve(preset=self.preset, seed=self.seed, stacks=FINAL_STACKS))
            preset = stages[self.row.hard_mining].identity()
        else:
            preset = resolve(preset=self.preset, module=self.module, seed=self.seed).identity()
        return {name: value for name, value in self.identity().items() if name not in preset or value != preset[name]}

    def identity(self) -> dict[str, Any]:
        """What decides the outcome of training, apart from the data's content."""
        without = (
            "data",
            "tta",
            "compiled",
            "finetune_epochs",
            "finetune_rate",
            *(() if self.dataset == "synthetic" else _SYNTHETIC),
        )
        return {name: value for name, value in dataclasses.asdict(self).items() if name not in without}


#: Of the model behind Table 1's last row (§3.1).
FINAL_STACKS = 4


def final_stages(settings: Settings) -> tuple[Settings, Settings]:
    """The final model (§3.1): all modules with the plain loss, then, from its weights, with hard mining.

    The second stage is a run of its own, at one low rate.
    """
    tuned = dataclasses.replace(
        with_module(settings, "ALL"),
        epochs=settings.finetune_epochs,
        learning_rate=settings.finetune_rate,
        schedule="constant",
    )
    return with_module(settings, "BDMP+SCA"), tuned


_DRAWN: Mapping[str, Any] = {
    "dataset": "synthetic", "input_size": 128, "channels": 32, "heatmap_std": 0.001,
    "batch_size": 8, "learning_rate": 2.5e-3, "schedule": "linear",
    "scale_jitter": 0.1, "rotation_probability": 0.0, "colour_jitter": 0.0,
    "finetune_epochs": 1, "finetune_rate": 2.5e-5,
}  # fmt: skip

PRESETS: Mapping[str, Mapping[str, Any]] = types.MappingProxyType(
    {
        "tiny": {
            "dataset": "synthetic", "synthetic_train": 32, "synthetic_valid": 16, "input_size": 64, "stacks": 1,
            "channels": 16, "epochs": 2, "batch_size": 8, "learning_rate": 2.5e-3, "sigma": 1.0,
            "finetune_epochs": 1, "finetune_rate": 2.5e-6,
        },
        "quick": {**_DRAWN, "epochs": 3},
        "synthetic": {**_DRAWN, "epochs": 5},
        "lspet-small": {
            "dataset": "lspet", "input_size": 128, "channels": 64, "heatmap_std": 0.001,
            "epochs": 12, "batch_size": 8, "learning_rate": 2.5e-3, "schedule": "linear",
            "finetune_epochs": 1, "finetune_rate": 2.5e-5,
        },
        # `border` as PHT has it; the other presets' runs were made before it could be chosen.
        "lspet": {"dataset": "lspet", "epochs": 60, "batch_size": 16, "finetune_epochs": 4, "border": "partial"},
        "paper": {"border": "partial"},
    }
)  # fmt: skip

#: Presets whose records are cheap: kept out of git and made again when the code behind them has changed.
EPHEMERAL = ("tiny", "quick")


def resolve(*, module: str = "SSA", preset: str = "quick", **overrides: Any) -> Settings:
    """The full settings of one run: the preset's values, then every override that is not None.

    Raises:
        UserError: an unknown name, a wrong type or a value out of range; the message lists what is allowed.
    """
    fields = {f.name: f for f in dataclasses.fields(Settings)}
    refuse_unknown(overrides, fields)
    for name, value in (("preset", preset), ("module", module)):
        if not isinstance(value, str):
            raise UserError(f"{name} is {value!r}: allowed is text")
    if preset not in PRESETS:
        raise UserError(f"preset {preset!r} is unknown{_perhaps(preset, PRESETS)}: allowed are {', '.join(PRESETS)}")
    short = {name: name for name in ROWS} | {row.title: name for name, row in ROWS.items()}
    if module not in short:
        raise UserError(
            f"module {module!r} is no row of Table 2{_perhaps(module, short)}: allowed are {', '.join(ROWS)}, "
            f"or in full {', '.join(row.title for row in ROWS.values() if row.title not in ROWS)}"
        )
    given = {name: value for name, value in overrides.items() if value is not None}
    values = {**PRESETS[preset], **given, "module": short[module], "preset": preset}
    return Settings(**{name: _checked(name, value, fields[name].type) for name, value in values.items()})


def refuse_unused(settings: Settings) -> Settings:
    """The settings. Raises UserError if one that the row or the data have no use for is not the preset's."""
    for name, value in _unused(settings).items():
        user = f"module {settings.module}" if name in USES else f"data set {settings.dataset}"
        raise UserError(f"{name} is {value!r}, and {user} has no use for it: leave it out")
    return settings


def with_module(settings: Settings, module: str) -> Settings:
    """The settings for another row: what that has no use for is the preset's again."""
    other = dataclasses.replace(settings, module=module)
    own = resolve(preset=settings.preset, module=module)
    return dataclasses.replace(other, **{name: getattr(own, name) for name in _unused(other)})


def _unused(settings: Settings) -> dict[str, Any]:
    """The settings that the row or the data have no use for, where they are not the preset's."""
    own = resolve(preset=settings.preset, module=settings.module)
    names = [name for name, used in USES.items() if not used(settings.row)]
    names += _SYNTHETIC if settings.dataset != "synthetic" else ()
    return {name: getattr(settings, name) for name in names if getattr(settings, name) != getattr(own, name)}


def refuse_unknown(given: Iterable[str], allowed: Collection[str]) -> None:
    for name in given:
        if name not in allowed:
            raise UserError(f"unknown parameter {name!r}{_perhaps(name, allowed)}: allowed are {', '.join(allowed)}")


def _perhaps(name: str, allowed: Iterable[str]) -> str:
    """The allowed name that a misspelt one may have meant, in brackets; empty if none is near."""
    by_lower = {other.lower(): other for other in allowed}
    near = difflib.get_close_matches(name.lower(), by_lower, n=1)
    return f" (perhaps {by_lower[near[0]]})" if near else ""


def resolve_dials(kind: type, **given: Any) -> Any:
    """The settings of a measurement: a frozen dataclass's defaults, then everything given that is not None.

    Whole numbers are counts, from 1 on.

    Raises:
        UserError: a wrong type or a value out of range; the message says what is allowed.
    """
    types_ = {f.name: f.type for f in dataclasses.fields(kind)}
    values = {name: _checked(name, value, types_[name]) for name, value in given.items() if value is not None}
    for name, value in values.items():
        if type(value) is int and value < 1:
            raise UserError(f"{name} is {value!r}: allowed is a whole number from 1 on")
    return kind(**values)


def changed_dials(chosen: Any) -> dict[str, Any]:
    """The dials of a dataclass that differ from their defaults, by name."""
    return {
        f.name: getattr(chosen, f.name) for f in dataclasses.fields(chosen) if getattr(chosen, f.name) != f.default
    }


_RANGES: Mapping[str, tuple[float, float]] = types.MappingProxyType(
    {
        "seed": (0, 2**31 - 1),
        "limit": (2, 10**9),
        "synthetic_train": (2, 10**6),
        "synthetic_valid": (2, 10**6),
        "part_scale": (0.0, 1.0),
        "clutter": (0.0, 1.0),
        "input_size": (64, 1024),
        "stacks": (1, 16),
        "channels": (16, 4096),
        "tau": (0.01, 100.0),
        "heatmap_std": (0.0, 1.0),
        "epochs": (1, 10**5),
        "batch_size": (2, 10**5),
        "learning_rate": (1e-9, 1.0),
        "top_k": (1, 16),
        "finetune_epochs": (1, 10**5),
        "finetune_rate": (1e-9, 1.0),
        "scale_jitter": (0.0, 0.25),
        "rotation": (0.0, 180.0),
        "rotation_probability": (0.0, 1.0),
        "colour_jitter": (0.0, 1.0),
        "sigma": (0.5, 3.5),
    }
)

#: Whole-number settings that must be multiples: the hourglass halves the heat map four times, MSFI divides by 8.
_MULTIPLES: Mapping[str, int] = types.MappingProxyType({"input_size": 64, "channels": 16})


def _checked(name: str, value: Any, type_: Any) -> Any:
    if name == "heatmap_std" and value == "default":
        return None
    options = [t for t in typing.get_args(type_) if t is not type(None)]
    if typing.get_origin(type_) is Literal:
        if value not in typing.get_args(type_):
            raise UserError(f"{name} is {value!r}: allowed are {', '.join(typing.get_args(type_))}")
        return value
    wanted = options[0] if options else type_
    if wanted is float and type(value) is int and abs(value) < 2**53:
        value = float(value)
    if type(value) is not wanted:
        kind = {int: "a whole number", float: "a number", str: "text", bool: "True or False"}[wanted]
        low_high = " from {} to {}".format(*_RANGES[name]) if name in _RANGES else ""
        own = ", or 'default'" if name == "heatmap_std" else ""
        raise UserError(f"{name} is {value!r}: allowed is {kind}{low_high}{own}")
    if name in _RANGES:
        low, high = _RANGES[name]
        if not low <= value <= high:
            raise UserError(f"{name} is {value!r}: allowed is a value from {low} to {high}")
    if name in _MULTIPLES and value % _MULTIPLES[name]:
        raise UserError(f"{name} is {value!r}: allowed are multiples of {_MULTIPLES[name]}")
    return value
