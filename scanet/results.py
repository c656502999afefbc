"""Run records on disk: one folder a run, whole or not at all, and what says whether one is still current.

`<preset>/<experiment>/<row>-s<seed>/` under `experiments/results/` holds run.json (everything about the run),
history.csv (a row an epoch), predictions.h5 (the validation persons) and, not in git, weights.safetensors.
"""

import ast
import hashlib
import importlib.metadata
import json
import platform
import re
import shutil
import subprocess
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields
from functools import cache, lru_cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

import h5py
import numpy as np
import pandas as pd
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from scanet.config import EPHEMERAL, PRESETS, ROWS, Network, Row, Settings
from scanet.errors import kinds
from scanet.files import UserError, results_folder, whole_file, whole_folder, write_json
from scanet.inference import Predictions
from scanet.model import SCANet
from scanet.pckh import Scores
from scanet.skeleton import SKELETONS, Skeleton

#: Beside the network's modules, those that decide what a training gives.
TRAINING = (
    "losses.py", "train.py", "device.py", "processes.py", "skeleton.py",
    "data/heatmaps.py", "data/loader.py", "data/person.py", "data/store.py", "data/transforms.py",
)  # fmt: skip


def folder_of(
    settings: Settings,
    experiment: str,
    start: "Record | None" = None,
    dials: Mapping[str, Any] = MappingProxyType({}),
) -> Path:
    """Where the run's record lives. Settings that differ from the preset's are part of its name.

    dials: those of a measurement that differ from their defaults.
    """
    named = {**overrides(settings, experiment, start), **dials}
    changed = "".join(f"-{name}={value}" for name, value in sorted(named.items()))
    return results_folder() / settings.preset / experiment / f"{settings.module}-s{settings.seed}{changed}"


def overrides(settings: Settings, experiment: str, start: "Record | None" = None) -> dict[str, Any]:
    """What differs from the preset, by name; `start.<name>` is what differs in the run that this one starts from."""
    own = settings.overrides(experiment)
    before = start.run["overrides"] if start is not None else {}
    return own | {f"start.{name}": value for name, value in before.items() if own.get(name) != value}


def key_of(settings: Settings, experiment: str, fingerprint: str, start: "Record | None" = None) -> str:
    """16 hex digits of what the run is: settings, data, the training recipe, the start's key.

    Settings count where they differ from their defaults: one that is added later leaves all keys as they are.
    """
    defaults = {f.name: f.default for f in fields(settings)}
    chosen = {name: value for name, value in settings.identity().items() if value != defaults[name]}
    before = {} if start is None else {"start": start.run["key"]}
    code = {"code": training_code(settings.module)} if _follows_code(settings.preset, settings.module) else {}
    recipe = settings.row.recipe
    return digest(experiment=experiment, settings=chosen, data=fingerprint, recipe=recipe, **before, **code)


def _follows_code(preset: str, module: str) -> bool:
    """Whether a run is old as soon as the code that trains has changed: one that is cheap, or of a row of one's own.

    For the others `Row.recipe` says so.
    """
    return preset in EPHEMERAL or ROWS[module].place == "ours"


def _sources(package: Path) -> dict[str, str]:
    """The text of every module that decides what a training gives."""
    paths = [*sorted(package.glob("model/*.py")), *(package / name for name in TRAINING)]
    return {str(path.relative_to(package)): path.read_text(encoding="utf-8") for path in paths}


#: Of the code that runs: a file that is edited afterwards is not what this process has imported.
_SOURCES = _sources(Path(__file__).parent)


@cache
def training_code(module: str) -> str:
    """16 hex digits of the code behind a row's training: comments, docstrings and layout do not count."""
    code = {name: _statements(source) for name, source in _SOURCES.items()}
    defaults = {f.name: f.default for f in fields(Row)}
    row = {name: value for name, value in asdict(ROWS[module]).items() if value != defaults[name]}
    return digest(code=code, row={name: value for name, value in row.items() if name not in ("title", "place")})


def _statements(source: str) -> Any:
    """A module's code without docstrings and comments, as plain values: the same in every version of Python."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node, clean=False):
            node.body = node.body[1:] or [ast.Pass()]
    return _plain(tree)


def _plain(value: Any) -> Any:
    if isinstance(value, ast.AST):  # what later versions add to a node is empty in code without it
        parts = {name: _plain(part) for name, part in ast.iter_fields(value) if part not in (None, [])}
        return [type(value).__name__, parts]
    return [_plain(part) for part in value] if isinstance(value, list) else repr(value)


def digest(**parts: Any) -> str:
    """16 hex digits of plain values."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Record:
    """A finished run. `run` is run.json as it stands; the rest is read when asked for."""

    folder: Path
    run: dict[str, Any] = field(repr=False)

    @property
    def settings(self) -> dict[str, Any]:
        return self.run["settings"]

    @property
    def name(self) -> str:
        """`<preset>/<experiment>/<row>-s<seed>`, the run's address in the book."""
        return "/".join(self.folder.parts[-3:])

    @property
    def canonical(self) -> bool:
        """Whether every setting is the preset's own."""
        return not self.run["overrides"]

    @property
    def held_out(self) -> bool:
        """Whether its scores are of persons that it was not trained on."""
        return self.settings.get("train_on", "train") == "train"

    @property
    def made_with(self) -> Settings:
        """Settings that are younger than the record had the effect of their defaults."""
        return Settings(**{f.name: self.settings[f.name] for f in fields(Settings) if f.name in self.settings})

    @property
    def network(self) -> Network:
        return self.made_with.network(self.run["network"]["joints"])

    @property
    def skeleton(self) -> Skeleton:
        return SKELETONS[self.run["network"]["joints"]]

    @property
    def again(self) -> str:
        """What has to be done to train it again, as the end of a sentence: its record would only be loaded."""
        experiment, own = self.folder.parent.name, self.run["overrides"]
        if experiment == "ablation" or (experiment == "final" and not own):
            what = self.settings["module"] if experiment == "ablation" else "--final"
            changes = "".join(f" --set {name}={'default' if v is None else v}" for name, v in own.items())
            preset, seed = self.settings["preset"], self.settings["seed"]
            return f"delete {self.folder} and run `scanet train {what} --preset {preset} --seed {seed}{changes}`"
        return f"delete {self.folder} and make it again as it was made"

    def scores(self, tta: str = "flip") -> Scores:
        self._check(tta)
        try:
            return Scores.from_dict(self.run["metrics"][tta])
        except KeyError as error:
            raise UserError(
                f"{self.name} lacks {error.args[0]} in its scores by {tta}, so it is damaged: {self.again}"
            ) from error

    def _check(self, tta: str) -> None:
        if tta not in self.run["metrics"]:
            raise UserError(
                f"{self.name} has no scores with tta {tta!r}: choose one of {', '.join(self.run['metrics'])}"
            )

    def history(self) -> pd.DataFrame:
        return pd.read_csv(self.folder / "history.csv")

    def predictions(self) -> dict[str, np.ndarray]:
        """Of each validation person: joints (n, j, 2) and heat (n, j), by flip test; truth, head_size, row.

        joints_none: of one forward pass; joints_<tta>: of another way of testing whose scores were added later.
        """
        with _predictions(self.folder / "predictions.h5") as file:
            return {name: file[name][()] for name in file}

    def kinds(self, tta: str = "flip") -> tuple[np.ndarray, np.ndarray]:
        """The kind of every scored person's joints (`errors.KINDS`), by number, and which joints are annotated.

        Both (n, 14), the joints in the skeleton's order. "right" is PCKh's: within half a head size (<=).
        """
        self._check(tta)
        path = self.folder / "predictions.h5"
        return _kinds(path, path.stat().st_mtime_ns, "joints" if tta == "flip" else f"joints_{tta}")

    def model(self) -> SCANet | None:
        """The trained network on the CPU, in evaluation mode; None where the weights are not on this machine."""
        path = self.folder / "weights.safetensors"
        return load_network(path) if path.exists() else None

    def trained_model(self) -> SCANet:
        """As `model`. Raises UserError where the weights are not on this machine."""
        model = self.model()
        if model is None:
            raise UserError(
                f"{self.folder} has no weights.safetensors, which git does not keep: to make them, {self.again}, "
                f"which took {self.run['seconds'] / 60:.0f} minutes"
            )
        return model

    def outdated(self, settings: Settings, fingerprint: str | None, start: "Record | None" = None) -> str:
        """Why the record is not what these settings would give now; empty if it is.

        fingerprint: of the data at hand; None where there is none, and the record's own is believed.
        start: the run that it would start from now.
        """
        now = settings.identity()
        # A setting younger than the record had the effect of its default, else `Row.recipe` would have been raised.
        then = {f.name: f.default for f in fields(Settings)} | self.settings
        names = sorted(name for name in now if now[name] != then[name])
        if names:
            return f"the preset has changed since ({', '.join(names)})"
        if fingerprint is not None and self.run["data"]["fingerprint"] != fingerprint:
            return f"it was made from other data (fingerprint {self.run['data']['fingerprint']}, now {fingerprint})"
        other_code = _follows_code(settings.preset, settings.module) and self.run.get("code") != training_code(
            settings.module
        )
        if self.run.get("recipe") != settings.row.recipe or other_code:
            return f"it was made by other training code (commit {short(self.run['commit'])})"
        began = self.run.get("start", {}).get("key")
        if start is not None and began != start.run["key"]:
            return f"it started from a run with key {began}, which is {start.run['key']} now"
        return ""


@contextmanager
def _predictions(path: Path) -> Iterator[h5py.File]:
    try:
        file = h5py.File(path, "r")
    except OSError as error:
        raise UserError(
            f"{path} cannot be read ({error}): if it is damaged, delete its folder and run again"
        ) from error
    with file:
        try:
            yield file
        except KeyError as error:
            raise UserError(f"{path} is damaged ({error.args[0]}): delete its folder and run again") from error


@lru_cache(maxsize=128)  # tables ask for one kind after the other, of many records
def _kinds(path: Path, changed: int, joints: str) -> tuple[np.ndarray, np.ndarray]:  # noqa: ARG001
    """`errors.kinds` of the scored joints in a file of predictions. joints: the dataset of the predicted ones.

    changed: when the file was, so that another one in its place is read.
    """
    with _predictions(path) as file:
        predicted, truth, head_size = (file[name][()].astype(np.float64) for name in (joints, "truth", "head_size"))
    skeleton = SKELETONS[truth.shape[1]]
    persons = head_size > 0  # NaN where there is no head size
    limbs = [skeleton.index(*limb) for limb in skeleton.limbs]
    found, annotated = kinds(predicted[persons], truth[persons], head_size[persons], skeleton.flip, limbs)
    scored = list(skeleton.scored)
    return found[:, scored], annotated[:, scored]


def write(
    folder: Path,
    run: dict[str, Any],
    history: Iterable[dict[str, float]],
    model: SCANet,
    predictions: Predictions,
    columns: dict[str, np.ndarray],
) -> Record:
    """Write the record in one step: nobody sees a part of it. columns: further datasets of predictions.h5."""
    with whole_folder(folder) as temporary:
        write_json(temporary / "run.json", run)
        pd.DataFrame(list(history)).to_csv(temporary / "history.csv", index=False)
        with h5py.File(temporary / "predictions.h5", "w") as file:
            tables = {"joints": predictions.joints, "heat": predictions.heat, **columns}
            for name, values in tables.items():
                small = values.astype(np.float32) if values.dtype.kind == "f" else values
                file.create_dataset(name, data=small, compression="gzip")
        save_model(model, temporary / "weights.safetensors")
    return Record(folder, run)


def add_scores(record: Record, tta: str, predictions: Predictions, scores: Scores) -> Record:
    """The record with a further test-time augmentation's joints and scores, on disk too."""
    run = record.run | {"metrics": record.run["metrics"] | {tta: scores.as_dict()}}
    path = record.folder / "predictions.h5"
    with whole_file(path) as temporary:
        shutil.copyfile(path, temporary)
        with h5py.File(temporary, "a") as file:
            name, joints = f"joints_{tta}", predictions.joints.astype(np.float32)
            file.require_dataset(name, joints.shape, joints.dtype, compression="gzip")[:] = joints
    write_json(record.folder / "run.json", run)  # last: what it lists is there
    return Record(record.folder, run)


def load(folder: Path) -> Record | None:
    """The record in `folder`; None if there is none. Raises UserError if it is broken."""
    path = folder / "run.json"
    if not path.exists():
        return None
    run = _read(path, metrics=dict, data=dict)
    if lost := sorted({"module", "preset", "seed"} - run["settings"].keys() | {"fingerprint"} - run["data"].keys()):
        raise UserError(f"{path} is no run record (it has no {lost[0]}): delete its folder and run again")
    return Record(folder, run)


def finished(folder: Path) -> Record:
    """The record in `folder`. Raises UserError if there is none."""
    record = load(folder)
    if record is None:
        raise UserError(f"{folder} holds no run.json: give the folder of a finished run")
    return record


def _read(path: Path, **also: type) -> dict[str, Any]:
    """also: what there has to be beside `_ALWAYS`, and its type."""
    try:
        run = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{path} is no run record ({error}): delete its folder and run again") from error
    found = run if isinstance(run, dict) else {}
    for name, kind in _ALWAYS.items():
        if not isinstance(found.get(name), kind):
            raise UserError(f"{path} is no run record (it has no {name}): delete its folder and run again")
    for name, kind in also.items():
        if not isinstance(found.get(name), kind):
            raise UserError(f"{path} is of a measurement and has no {name}: give the folder of a run")
    return found


#: What run.json has of every run and every measurement.
_ALWAYS: Mapping[str, type] = {"key": str, "settings": dict, "overrides": dict}


def records(preset: str, experiment: str = "ablation", *, of_any_length: bool = False) -> list[Record]:
    """The canonical records of a preset, in the order of Table 2, of their length and of the seeds.

    of_any_length: those too that differ from the preset in their number of epochs alone.
    """
    if preset not in PRESETS:
        raise UserError(f"preset {preset!r} is unknown: allowed are {', '.join(PRESETS)}")
    folder = results_folder() / preset / experiment
    found = [load(path.parent) for path in folder.glob("[!.]*/run.json")]
    free = {"epochs"} if of_any_length else set()
    wanted = [record for record in found if record is not None and record.run["overrides"].keys() <= free]
    order = list(ROWS)
    known = [record for record in wanted if record.settings["module"] in ROWS]  # not a row of another branch
    return sorted(known, key=lambda r: (order.index(r.settings["module"]), r.settings["epochs"], r.settings["seed"]))


def seeds(settings: Settings, experiment: str = "ablation") -> list[Record]:
    """The records of these settings with any seed, in the order of the seeds."""
    folder = folder_of(settings, experiment).parent
    found = [load(path.parent) for path in folder.glob(f"{settings.module}-s*/run.json")]
    wanted = settings.module, settings.overrides(experiment)
    same = [r for r in found if r is not None and (r.settings["module"], r.run["overrides"]) == wanted]
    return sorted(same, key=lambda r: r.settings["seed"])


def named_in(text: str) -> dict[str, str]:
    """Name and key of every run and measurement on this machine that a text, such as a notebook's, names."""
    runs = {"/".join(path.parts[-4:-1]): path for path in sorted(results_folder().glob("*/*/[!.]*/run.json"))}
    found = [name for name in runs if re.search(rf"{re.escape(name)}(?![\w=-])", text)]
    return {name: _read(runs[name])["key"] for name in found}


def trained() -> list[Record]:
    """All records with their weights on this machine, of every preset and experiment, by name."""
    paths = sorted(results_folder().glob("*/*/[!.]*/weights.safetensors"))
    found = [load(path.parent) for path in paths]
    return [record for record in found if record is not None]


@dataclass(frozen=True)
class Measurement:
    """Something measured on finished runs: a folder of run.json and table.csv, named like a run's."""

    folder: Path
    run: dict[str, Any]

    @property
    def name(self) -> str:
        return "/".join(self.folder.parts[-3:])

    def table(self) -> pd.DataFrame:
        return pd.read_csv(self.folder / "table.csv")


def write_measurement(folder: Path, run: dict[str, Any], table: pd.DataFrame) -> Measurement:
    """Write the measurement in one step.

    run: experiment, preset, module, seed, overrides, sources (the runs' names and keys), settings, data (its
    fingerprint), version, key, device, seconds, created and `provenance`.
    """
    with whole_folder(folder) as temporary:
        write_json(temporary / "run.json", run)
        table.to_csv(temporary / "table.csv", index=False)
    return Measurement(folder, run)


def load_measurement(folder: Path) -> Measurement | None:
    """The measurement in `folder`; None if there is none. Raises UserError if it is broken."""
    path = folder / "run.json"
    return Measurement(folder, _read(path)) if path.exists() else None


def over_seeds(measurement: Measurement) -> pd.DataFrame:
    """The tables of this measurement and of those that differ from it in the seed alone, with the column seed.

    One of a run that was trained again since is left out, unless it is this one: it is shown with a notice.
    """
    tables = [each.table().assign(seed=each.run["seed"]) for each in _of_all_seeds(measurement)]
    return pd.concat(tables, ignore_index=True)


def behind(measurements: Sequence[Measurement]) -> list[Record]:
    """The runs that the tables `over_seeds` of these measurements come from, in Table 2's order and the seeds'."""
    each = [other for measurement in measurements for other in _of_all_seeds(measurement)]
    names = {name for measurement in each for name in measurement.run["sources"]}
    found = [record for name in sorted(names) if (record := load(results_folder() / name)) is not None]
    return sorted(found, key=lambda record: (list(ROWS).index(record.settings["module"]), record.settings["seed"]))


def _of_all_seeds(measurement: Measurement) -> list[Measurement]:
    runs = sorted(measurement.folder.parent.glob(f"{measurement.run['module']}-s*/run.json"))
    others = [other for path in runs if (other := load_measurement(path.parent)) is not None]
    return [
        other
        for other in others
        if all(other.run[name] == measurement.run[name] for name in _ALIKE)
        and (other.folder == measurement.folder or not _trained_again(other))
    ]


def measurements(preset: str, experiment: str) -> list[Measurement]:
    """The canonical measurements of a preset, in the order of Table 2 and of the seeds.

    Raises:
        UserError: two of them do not compare, or one is of a run that was trained again since.
    """
    folder = results_folder() / preset / experiment
    runs = [(path.parent, _read(path)) for path in folder.glob("[!.]*/run.json")]
    found = [Measurement(folder, run) for folder, run in runs if not run["overrides"]]
    order = list(ROWS)
    known = [measurement for measurement in found if measurement.run["module"] in ROWS]
    known.sort(key=lambda m: (order.index(m.run["module"]), m.run["seed"]))
    first: dict[str, Measurement] = {}
    for one in known:
        for other, names in ((known[0], ["data"]), (first.setdefault(one.run["module"], one), _ALIKE)):
            if differ := [name for name in names if one.run[name] != other.run[name]]:
                raise UserError(
                    f"{other.name} and {one.name} differ in {', '.join(differ)}: delete the older one's folder and "
                    "measure it again"
                )
        if again := _trained_again(one):
            raise UserError(f"{one.name} is older than {again}: delete its folder and measure it again")
    return known


#: In which two measurements agree that differ in the seed alone.
_ALIKE = ("module", "overrides", "settings", "data", "version")


def _trained_again(measurement: Measurement) -> str:
    """The run behind a measurement that has another key by now; empty if none has, or it is not here."""
    for name, key in measurement.run["sources"].items():
        record = load(results_folder() / name)
        if record is not None and record.run["key"] != key:
            return str(name)
    return ""


def one_preset(records: Sequence[Record]) -> str:
    """The preset of all records.

    Raises:
        UserError: they have several, or the preset or the training has changed between two of them, or one has
            seen the persons that it is scored on: the numbers do not compare.
    """
    for record in records:
        if not record.held_out:
            raise UserError(f"{record.name} was trained on its validation persons: leave it out of tables of results")
    if not records:
        raise UserError(
            "there is no finished run of this preset to show: make one with `scanet train ROW --preset PRESET`"
        )
    presets = {record.settings["preset"] for record in records}
    if len(presets) != 1:
        raise UserError(f"a table has records of the presets {sorted(presets)}: give those of one preset")
    made: dict[str, tuple[Record, Any]] = {}
    for record in records:
        preset, module = record.settings["preset"], record.settings["module"]
        code = record.run.get("code") if _follows_code(preset, module) else None
        recipe = ROWS[module].recipe
        behind = recipe - record.run.get("recipe", 0)
        # A row whose recipe was never raised is the same by any code; all others are of today's, or all as old.
        shared = "recipe" if recipe > 1 or behind > 0 else f"{module}'s recipe"
        for what, by in ((shared, behind), (module, code)):
            other, before = made.setdefault(what, (record, by))
            if by != before:
                raise UserError(
                    f"{other.name} and {record.name} were made by different training code: delete the older one's "
                    "folder and train it again"
                )
    changed = [(record.name, _changed_since(record)) for record in records]
    if any(values != changed[0][1] for _, values in changed):
        name, values = next((name, values) for name, values in changed if values)
        was = ", ".join(f"{setting}={value}" for setting, value in values.items())
        raise UserError(
            f"{name} was made when its preset had {was}, and other records of the table after that: delete its "
            "folder and train it again"
        )
    return presets.pop()


def _changed_since(record: Record) -> dict[str, Any]:
    """The settings in which a record's preset was another one when it was made, with their values then."""
    then = record.made_with.overrides(record.folder.parent.name)
    return {name: value for name, value in then.items() if name not in record.run["overrides"]}


def save_model(model: SCANet, path: Path, *, half: bool = False, about: Mapping[str, str] | None = None) -> None:
    """Weights as safetensors; the network's configuration is the file's metadata.

    half: 16 bits for a parameter. Batch normalisation's statistics keep 32: a variance can exceed 16 bits' 65504.
    """
    tensors = {name: tensor.contiguous().cpu() for name, tensor in model.state_dict().items()}
    if half:
        tensors |= {name: tensors[name].half() for name, _ in model.named_parameters()}
    network = asdict(model.config)
    row = next(name for name, row in ROWS.items() if row == model.config.row)
    # As bytes: safetensors itself would hide the operating system's error, and the file from other users.
    path.write_bytes(save(tensors, metadata={**(about or {}), "network": json.dumps(network | {"row": row})}))


def load_network(path: Path) -> SCANet:
    """The network of a weights file, on the CPU, in evaluation mode.

    Raises:
        UserError: the file is missing or was not written by `save_model`.
    """
    try:
        with safe_open(path, framework="pt") as file:
            network = json.loads(file.metadata()["network"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        if network["row"] not in ROWS:
            raise ValueError(f"it is of row {network['row']}, which is none of ROWS")
        model = SCANet(Network(**(network | {"row": ROWS[network["row"]]})))
        model.load_state_dict(tensors)
    except (OSError, SafetensorError, KeyError, TypeError, ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise UserError(
            f"{path} holds no weights of a network that this package has now ({reason}): delete it and train the run "
            "again, or give another file"
        ) from error
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return model.eval()


def provenance() -> dict[str, Any]:
    """Commit and versions, for run.json."""
    packages = ("scanet", "torch", "numpy", "h5py", "pillow")
    versions = {name: _version(name) for name in packages}
    return {"commit": commit(), "versions": {"python": platform.python_version(), **versions}}


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:  # of a checkout that is used without being installed
        return "unknown"


def short(commit: str) -> str:
    """A commit as a page shows it: twelve digits, and the mark of changed files."""
    return commit[:12] + commit[40:]


def commit() -> str:
    """The commit of the package's checkout, with "+changes" if files differ from it; "unknown" outside a checkout."""
    checkout = Path(__file__).resolve().parents[1]

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(checkout), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    try:
        # Is the package in it? An environment may lie in another project's checkout.
        git("ls-files", "--error-unmatch", "scanet/results.py")
        changes = git("status", "--porcelain", "--", "scanet/*.py", "scanet/*.txt")
        return git("rev-parse", "HEAD") + ("+changes" if changes else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
