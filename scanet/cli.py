"""The `scanet` command. Heavy imports wait until a command needs them, so that `--help` answers at once."""

import json
import sys
from contextlib import suppress
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml

from scanet.config import FINAL_STACKS, PRESETS, ROWS, Settings, final_stages, refuse_unused, resolve
from scanet.files import UserError, sentence

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
prepare_app = typer.Typer(help="Fill a store of person crops, which training reads.", no_args_is_help=True)
app.add_typer(prepare_app, name="prepare")

SET = "NAME=VALUE, repeatable: another setting, such as epochs, batch_size, learning_rate, stacks, channels or tau."
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for a machine to read.")]
Resolution = Annotated[int, typer.Option(help="Stored pixels along a person's box: 1.25 x the network's input.")]
Output = Annotated[Path | None, typer.Option(help="The store to fill. Default: data/<data set>-<resolution>.h5.")]


def _show_version(wanted: bool) -> None:
    if wanted:
        print(version("scanet"))
        raise typer.Exit


@app.callback()
def _options(
    _: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_show_version, help="Print the version.")
    ] = False,
) -> None:
    """Bi-directional Message Passing based SCANet for human pose estimation."""


def main() -> None:
    """Run the command; a `UserError`, or a file that cannot be used, is one sentence on stderr and exit code 1."""
    try:
        app()
    except (UserError, OSError) as error:
        print(f"scanet: {sentence(error) if isinstance(error, OSError) else error}", file=sys.stderr)
        sys.exit(1)


@app.command()
def info(joints: Annotated[int, typer.Option(help="16 for MPII, 14 for LSP.")] = 16, as_json: AsJson = False) -> None:
    """Count every row's parameters and operations. With 1, 2, 4 and 8 stacks; the operations are for one image.

    Example: scanet info
    """
    from scanet import cost
    from scanet.device import describe, pick_device
    from scanet.report import tables
    from scanet.skeleton import SKELETONS

    if joints not in SKELETONS:
        raise UserError(f"joints is {joints}: allowed are {', '.join(map(str, sorted(SKELETONS)))}")
    if not as_json:
        print(f"Device: {describe(pick_device())}\n\nTrainable parameters, millions, by the number of stacks")
    parameters = tables.by_stacks(cost.parameters, joints)
    if not as_json:
        print((parameters / 1e6).to_string(float_format="{:.3f}".format))
        print(
            "\nGFLOP for one 256 x 256 image, forward, a multiply-add being two; training takes three times as many"
        )
    flops = tables.by_stacks(cost.flops, joints)
    if not as_json:
        print((flops / 1e9).to_string(float_format="{:.1f}".format))
        return
    found = {
        row: {
            name: {str(stacks): int(value) for stacks, value in table.loc[row].items()}
            for name, table in (("parameters", parameters), ("flops", flops))
        }
        for row in parameters.index
    }
    print(json.dumps(found, indent=2))


@prepare_app.command("mpii")
def prepare_mpii(folder: Path, resolution: Resolution = 320, output: Output = None) -> None:
    """MPII, from its two official files. FOLDER holds mpii_human_pose_v1_u12_1.mat and images/, or
    mpii_human_pose_v1.tar.gz, which is then unpacked.

    A valid.h5 in it (Newell's format) says who is for validation; without one, those whom the field uses are.

    Example: scanet prepare mpii ~/mpii
    """
    _prepare("mpii", folder, resolution, output)


@prepare_app.command("lspet")
def prepare_lspet(folder: Path, resolution: Resolution = 320, output: Output = None) -> None:
    """LSP Extended, or LSP. FOLDER holds joints.mat and images/.

    Example: scanet prepare lspet ~/lspet --resolution 160
    """
    _prepare("lspet", folder, resolution, output)


@prepare_app.command("synthetic")
def prepare_synthetic(
    preset: Annotated[str, typer.Option(help="tiny, quick or synthetic: says how many persons.")] = "quick",
) -> None:
    """The drawn persons of a preset. They are written in MPII's formats and read from there.

    Example: scanet prepare synthetic
    """
    from scanet.data import prepare

    settings = resolve(preset=preset)
    if settings.dataset != "synthetic":
        names = [name for name, values in PRESETS.items() if values.get("dataset") == "synthetic"]
        raise UserError(f"preset {preset!r} has no synthetic data: choose one of {', '.join(names)}")
    store = prepare.open_store(settings)
    print(f"{len(store)} persons in {_shown(store.path)}")


@prepare_app.command("rehearsal")
def prepare_rehearsal(
    folder: Annotated[Path, typer.Argument(help="A new folder.")],
    share: Annotated[float, typer.Option(help="Of MPII's training and test persons, 0.001 to 1.")] = 1.0,
) -> None:
    """Drawn stand-ins for MPII's two files, for a rehearsal. They are written into FOLDER, with MPII's counts and
    sizes: then `scanet prepare mpii FOLDER` and all that follows can be tried before the download.

    Example: scanet prepare rehearsal /tmp/rehearsal --share 0.1
    """
    from scanet.data import rehearsal

    counts = rehearsal.write(folder, share=share)
    print(f"{', '.join(f'{number:,} {split}' for split, number in counts.items())} persons, all drawn, in {folder}")


def _prepare(dataset: str, folder: Path, resolution: int, output: Path | None) -> None:
    import time

    import torch

    from scanet.data import prepare
    from scanet.data.person import Reading
    from scanet.device import cores, peak_memory
    from scanet.plan import duration, size

    photographs: set[str] = set()

    def tell(reading: Reading) -> None:
        print(reading)
        photographs.update(person.image for person in reading.persons)

    path = output or prepare.default_path(dataset, resolution)
    start = time.perf_counter()
    report = prepare.prepare(dataset, folder, path, resolution, on_read=tell)
    seconds = time.perf_counter() - start
    again = f" ({report.resumed} of them from before)" if report.resumed else ""
    outside = f", {len(report.outside)} persons outside their photograph" if report.outside else ""
    print(f"{report.stored} persons in {_shown(path)}{again}, {len(report.skipped)} photographs skipped{outside}")
    if report.resumed == report.stored:
        return
    print(
        f"{len(photographs):,} photographs in {duration(seconds)}, "
        f"{len(photographs) / seconds / cores():.1f} a second and core; peak memory "
        f"{size(peak_memory(torch.device('cpu')))}, store {size(path.stat().st_size)}"
    )


def _shown(path: Path) -> Path:
    """As one would type it here."""
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


@app.command()
def train(
    module: Annotated[str | None, typer.Argument(help=f"A row of Table 2: {', '.join(ROWS)}. Default: SSA.")] = None,
    preset: Annotated[str, typer.Option(help=", ".join(PRESETS))] = "quick",
    final: Annotated[bool, typer.Option("--final", help="The final model's two stages instead of a row.")] = False,
    seed: Annotated[int, typer.Option(help="Of the first weights, the augmentation and the attention's noise.")] = 0,
    data: Annotated[str | None, typer.Option(help="The data set's folder, or a store.")] = None,
    tta: Annotated[str, typer.Option(help="none, flip or six-scale.")] = "flip",
    given: Annotated[list[str] | None, typer.Option("--set", help=SET)] = None,
) -> None:
    """Train and evaluate a row of Table 2. Of a run that is finished its record is shown, as in `ablation.ipynb`.

    Example: scanet train SSA --preset quick --set tau=0.5

    With --final as `final.ipynb` does.

    On several GPUs: accelerate launch --multi_gpu -m scanet.cli train SSA --preset paper
    """
    from scanet import processes, runs
    from scanet.report import tables

    settings = _settings(module, final, given, preset=preset, seed=seed, data=data, tta=tta)
    made = runs.final(settings) if final else [runs.run_or_load(settings)]
    if processes.rank() > 0:
        return
    print(*made, sep="\n")
    if all(run.loaded for run in made):
        print("Loaded from its record, not trained: another --seed or --set is another run.", file=sys.stderr)
    records = [run.record for run in made]
    table = tables.final(records, settings.tta) if final else tables.ablation_row(records[0], settings.tta)
    print(table.to_string(float_format="{:.2f}".format, na_rep=""))


def _settings(module: str | None, final: bool, given: list[str] | None, **options: Any) -> Settings:
    """Those of a row, or of the final model's first stage, from a command's options and its --set's."""
    if final and module is not None:
        raise UserError(f"--final has a row of its own: leave out {module}")
    pairs = dict(map(_pair, given or []))
    for name in pairs.keys() & {"module", *options}:
        raise UserError(f"--set {name}: that has a place of its own in the command, see --help")
    chosen: dict[str, Any] = {name: value for name, value in options.items() if value is not None} | pairs
    if final:
        return resolve(**{"stacks": FINAL_STACKS} | chosen, module="ALL")
    return refuse_unused(resolve(**chosen, module=module or "SSA"))


def _pair(given: str) -> tuple[str, Any]:
    """The name and the value of NAME=VALUE: a number as Python reads it, else as YAML does: true, false, text."""
    name, _, value = given.partition("=")
    for number in (int, float):  # YAML takes 1e-4 for text
        with suppress(ValueError):
            return name, number(value)
    try:
        if value:
            return name, yaml.safe_load(value)
    except yaml.YAMLError:
        pass
    raise UserError(f"--set {given}: give NAME=VALUE, as in --set epochs=3")


@app.command()
def plan(
    module: Annotated[str | None, typer.Argument(help=f"A row of Table 2: {', '.join(ROWS)}. Default: SSA.")] = None,
    preset: Annotated[str, typer.Option(help=", ".join(PRESETS))] = "quick",
    final: Annotated[bool, typer.Option("--final", help="The final model's two stages instead of a row.")] = False,
    data: Annotated[str | None, typer.Option(help="A store; default: the preset's, else drawn persons.")] = None,
    given: Annotated[list[str] | None, typer.Option("--set", help=SET)] = None,
    as_json: AsJson = False,
) -> None:
    """Say what a run will need: hours, memory, disk. A few steps of it are measured on this machine.

    Example: scanet plan SSA --preset paper --set epochs=100

    With --final: of the final model's two stages.
    """
    from scanet import processes, runs
    from scanet.device import pick_device

    settings = _settings(module, final, given, preset=preset, data=data)
    processes.join(pick_device())
    found = runs.plan(final_stages(settings) if final else [settings])
    if processes.rank() == 0:
        print(json.dumps(found.as_dict(), indent=2) if as_json else found)


@app.command()
def evaluate(
    what: Annotated[Path, typer.Argument(help="A run's folder, or anybody's prediction file (.h5, .mat).")],
    truth: Annotated[Path | None, typer.Option(help="For a prediction file: Newell .h5 or toolkit .mat.")] = None,
    data: Annotated[Path | None, typer.Option(help="For a run: another store to evaluate it on.")] = None,
    key: Annotated[str | None, typer.Option(help="The variable in the prediction file, if not `preds`.")] = None,
    tta: Annotated[str | None, typer.Option(help="For a run: none, flip (the default) or six-scale.")] = None,
    as_json: AsJson = False,
) -> None:
    """Score a finished run or a prediction file. By PCKh@0.5, in every convention.

    A prediction file counts pixels from 1, as MPII's own files do: (N, 16, 2) under the name `preds`, the persons in
    the truth's order.

    Example: scanet evaluate predictions.h5 --truth valid.h5
    """
    from scanet import evaluation
    from scanet.pckh import CONVENTIONS
    from scanet.report import tables

    if not what.exists():
        raise UserError(f"{what}: there is no such file or folder: check the path")
    unused = ("--truth or --key", truth or key) if what.is_dir() else ("--data or --tta", data or tta)
    if unused[1]:
        raise UserError(f"{what} is scored without {unused[0]}: leave it out")
    if what.is_dir():
        settings = resolve(tta=tta)
        scores, about = evaluation.evaluate(what, data, settings.tta, progress=not as_json)
    elif truth is None:
        raise UserError(f"{what} is no folder of a run: for a prediction file, give --truth FILE as well")
    else:
        scores, about = evaluation.evaluate_file(what, truth, key), f"{what.name} against {truth.name}"
    if as_json:
        words = {name: str(convention) for name, convention in CONVENTIONS.items()}
        print(json.dumps({"what": about, "conventions": words, **scores.as_dict()}))
        return
    print(f"{about}: PCKh@{scores.threshold:g} of {scores.persons} persons, {scores.skipped} without a head skipped")
    print(tables.conventions(scores).to_string(float_format="{:.3f}".format))
    for name, convention in CONVENTIONS.items():
        print(f"{name + ':':<14}{convention}")
    print(f"AUC 0 to 0.5: {scores.auc:.3f} (mean of 51 thresholds), {scores.auc_integrated:.3f} (official toolkit)")


@app.command()
def compare(
    row: Annotated[str, typer.Argument(help=f"A row of Table 2: {', '.join(ROWS)}.")],
    over: Annotated[str, typer.Argument(help="The row that it is compared with.")],
    preset: Annotated[str, typer.Option(help=", ".join(PRESETS))] = "quick",
    tta: Annotated[str, typer.Option(help="none, flip or six-scale.")] = "flip",
) -> None:
    """Compare two rows, with an interval. It is the mean PCKh of the first less that of the second, points, with its
    95 % interval, from finished runs.

    With one seed the interval is that of the persons alone.

    Example: scanet compare SSA MSFI --preset synthetic
    """
    from scanet import results
    from scanet.report import statistics

    wanted = [resolve(module=name, preset=preset, tta=tta) for name in (row, over)]
    if wanted[0] == wanted[1]:
        raise UserError(f"both rows are {wanted[0].module}: give two different ones")
    ours, theirs = (results.seeds(settings) for settings in wanted)
    for settings, records in zip(wanted, (ours, theirs), strict=True):
        for record in records:
            if notice := record.outdated(replace(settings, seed=record.settings["seed"]), None):
                print(f"Note: {record.name}: {notice}.", file=sys.stderr)
    difference = statistics.row_difference(ours, theirs, wanted[0].tta)
    if difference is None:
        raise UserError(
            f"{wanted[0].module} and {wanted[1].module} have no finished runs of one seed on preset {preset!r}: "
            f"make them with `scanet train ROW --preset {preset}`"
        )
    print(f"{wanted[0].row.title} − {wanted[1].row.title}, {preset}, {tta}: {difference}")


@app.command()
def submit(
    run: Annotated[Path, typer.Argument(help="A run's folder.")],
    mat: Annotated[Path, typer.Option(help="MPII's mpii_human_pose_v1_u12_1.mat.")],
    data: Annotated[Path, typer.Option(help="The store that `scanet prepare mpii` filled.")],
    tta: Annotated[str, typer.Option(help="none, flip or six-scale.")] = "flip",
    output: Annotated[Path, typer.Option(help="The file to write.")] = Path("pred_keypoints_mpii.mat"),
) -> None:
    """Write the file that MPII's server scores. The run's network predicts MPII's test persons for it.

    Example: scanet submit experiments/results/paper/ablation/SSA-s0 --mat mpii/mpii_human_pose_v1_u12_1.mat
    --data data/mpii-320.h5
    """
    from scanet import evaluation
    from scanet.device import describe, pick_device

    settings = resolve(tta=tta)
    print(f"Device: {describe(pick_device())}")
    images, persons = evaluation.submit(run, mat, data, settings.tta, output)
    print(f"{persons} persons in {images} test images: {output}")


@app.command()
def predict(
    photos: Annotated[list[Path], typer.Argument(help="Photographs of any kind.")],
    box: Annotated[
        tuple[float, float, float, float] | None,
        typer.Option(metavar="X Y W H", help="The person's box: its top left corner, width and height, pixels."),
    ] = None,
    boxes: Annotated[
        Path | None, typer.Option(help='A json of boxes: {"photo.jpg": [[x, y, w, h], ...]}, from any detector.')
    ] = None,
    model: Annotated[
        Path | None, typer.Option(help="A run's folder, or a file of `scanet export`. Default: the package's model.")
    ] = None,
    output: Annotated[Path, typer.Option(help="The folder for the pictures and the json files.")] = Path("poses"),
    tta: Annotated[str, typer.Option(help="none, flip or six-scale.")] = "flip",
    device: Annotated[str | None, typer.Option(help="cuda, mps or cpu. Default: the best there is.")] = None,
) -> None:
    """Find the joints of persons in photographs. Each photograph gets a picture with skeletons, and a json.

    There is no detector here. Without boxes each whole picture is taken as one person's.

    Example: scanet predict photo.jpg --box 120 40 200 480
    """
    from scanet import photo
    from scanet.device import describe, pick_device

    settings = resolve(tta=tta)
    if box is not None and boxes is not None:
        raise UserError("both --box and --boxes are given: give one of them")
    if box is not None and len(photos) > 1:
        raise UserError(f"--box is for one photo and there are {len(photos)}: give --boxes FILE.json")
    listed = photo.read_boxes(boxes) if boxes is not None else None
    predictor = photo.load_model(model, pick_device(device))
    print(f"Device: {describe(predictor.device)}. Model: {predictor.name}")
    if box is None and boxes is None:
        print(
            "scanet: each whole picture is taken as one person's; where there are several people, or one who is "
            "small, boxes are needed: give --box or --boxes",
            file=sys.stderr,
        )
    failed = photo.predict_photos(
        photos, [box] if box is not None else listed, predictor, settings.tta, output, [boxes] if boxes else [],
        lambda path, picture, count: print(f"{path}: {count} person{'s' * (count != 1)}, {picture}"),
    )  # fmt: skip
    if failed and len(photos) == 1:  # which has its sentence
        raise typer.Exit(1)
    if failed:
        raise UserError(f"{failed} of {len(photos)} photos could not be done: see above")


@app.command()
def export(
    run: Annotated[Path, typer.Argument(help="A run's folder.")],
    output: Annotated[Path, typer.Option(help="The file to write; its card README.md is put beside it.")] = Path(
        "exported/scanet.safetensors"
    ),
    data: Annotated[
        str | None, typer.Option(help="The data set's folder, or a store. Default: the preset's.")
    ] = None,
) -> None:
    """Write a run's network as a file, with its card. In half precision; what that costs is measured.

    Example: scanet export experiments/results/lspet/ablation/SSA-s0 --output scanet/weights/scanet.safetensors
    """
    from scanet import export
    from scanet.device import describe, pick_device

    print(f"Device: {describe(pick_device())}")
    full, half = export.write(run, output, data)
    print(f"{output}, {output.stat().st_size / 1e6:.2f} MB: PCKh {half:.2f} in half precision, {full:.2f} in full")


@app.command()
def bench(
    preset: Annotated[str, typer.Option(help=f"The network's size: {', '.join(PRESETS)}.")] = "paper",
    rows: Annotated[str | None, typer.Option(help="Rows of Table 2, with commas. Default: all of them.")] = None,
    rounds: Annotated[int, typer.Option(min=1, help="How often everything is timed.")] = 3,
    stacks: Annotated[int | None, typer.Option(help="Default: the preset's.")] = None,
    channels: Annotated[int | None, typer.Option(help="Default: the preset's.")] = None,
    input_size: Annotated[int | None, typer.Option(help="Pixels. Default: the preset's.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Default: 4 on a CPU, 32 elsewhere.")] = None,
    data: Annotated[str | None, typer.Option(help="A store of the preset's data. Default: drawn persons.")] = None,
    compiled: Annotated[
        bool, typer.Option("--compiled", help="Also training by torch.compile: minutes more.")
    ] = False,
    device: Annotated[str | None, typer.Option(help="cuda, mps or cpu. Default: the best there is.")] = None,
    as_json: AsJson = False,
) -> None:
    """Time training and prediction of every row. Beside the plain way and the machine's limits.

    On a CPU that has other work to do, OMP_NUM_THREADS=1 makes it read the processor's time and not the wall's.

    Example: scanet bench --rows Baseline,ALL

    Several processes measure what they train together: accelerate launch --multi_gpu -m scanet.cli bench
    """
    from scanet import processes
    from scanet.bench import report, run
    from scanet.device import describe, pick_device

    where = pick_device(device)
    processes.join(where)
    settings = resolve(
        preset=preset, data=data, stacks=stacks, channels=channels, input_size=input_size, compiled=compiled,
        batch_size=(4 if where.type == "cpu" else 32) if batch_size is None else batch_size,
    )  # fmt: skip
    modules = [resolve(module=name.strip()).module for name in rows.split(",")] if rows else list(ROWS)
    first = processes.rank() == 0
    if first and not as_json:
        print(f"Device: {describe(where)}")
    record, path = run.bench(settings, modules, rounds, where, progress=first and not as_json)
    if not first:
        return
    if as_json:
        print(json.dumps(record, indent=2))
        return
    print(f"\n{report.text(record)}\n{path}")


if __name__ == "__main__":
    main()
