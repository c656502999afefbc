"""The `scanet` command. Heavy imports wait until a command needs them, so that `--help` answers at once."""

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from scanet.config import PRESETS, ROWS, resolve
from scanet.files import UserError

app = typer.Typer(
    help="Bi-directional Message Passing based SCANet for human pose estimation.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
prepare_app = typer.Typer(help="Fill a store of person crops, which training reads.", no_args_is_help=True)
app.add_typer(prepare_app, name="prepare")

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for a machine to read.")]
Resolution = Annotated[int, typer.Option(help="Stored pixels along a person's box: 1.25 x the network's input.")]
Output = Annotated[Path | None, typer.Option(help="The store to fill. Default: data/<data set>-<resolution>.h5.")]


def main() -> None:
    """Run the command; a `UserError` is one sentence on stderr and exit code 1."""
    try:
        app()
    except UserError as error:
        print(f"scanet: {error}", file=sys.stderr)
        sys.exit(1)


@app.command()
def info(joints: Annotated[int, typer.Option(help="16 for MPII, 14 for LSP.")] = 16, as_json: AsJson = False) -> None:
    """What every row of Table 2 costs with 1, 2, 4 and 8 stacks: parameters, and operations for one image.

    Example: scanet info
    """
    from scanet import cost, tables
    from scanet.device import describe, pick_device

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
    """FOLDER holds mpii_human_pose_v1_u12_1.mat and images/, or mpii_human_pose_v1.tar.gz, which is then unpacked.

    A valid.h5 in it (Newell's format) says who is for validation; without one, those whom the field uses are.

    Example: scanet prepare mpii ~/mpii
    """
    _prepare("mpii", folder, resolution, output)


@prepare_app.command("lspet")
def prepare_lspet(folder: Path, resolution: Resolution = 320, output: Output = None) -> None:
    """FOLDER holds joints.mat and images/, of LSP Extended or of LSP.

    Example: scanet prepare lspet ~/lspet --resolution 160
    """
    _prepare("lspet", folder, resolution, output)


@prepare_app.command("synthetic")
def prepare_synthetic(
    preset: Annotated[str, typer.Option(help="tiny or quick: says how many persons.")] = "quick",
) -> None:
    """Draw the synthetic persons of a preset, write them in MPII's formats, and fill their store.

    Example: scanet prepare synthetic
    """
    from scanet import experiment

    settings = resolve(preset=preset)
    if settings.dataset != "synthetic":
        names = [name for name, values in PRESETS.items() if values.get("dataset") == "synthetic"]
        raise UserError(f"preset {preset!r} has no synthetic data: choose one of {', '.join(names)}")
    store = experiment.open_store(settings)
    print(f"{len(store)} persons in {store.path}")


@prepare_app.command("rehearsal")
def prepare_rehearsal(
    folder: Annotated[Path, typer.Argument(help="A new folder.")],
    share: Annotated[float, typer.Option(help="Of MPII's training and test persons, 0.001 to 1.")] = 1.0,
) -> None:
    """Write drawn stand-ins for MPII's two files into FOLDER, with its counts and sizes: then `scanet prepare mpii
    FOLDER` and all that follows can be tried before the download.

    Example: scanet prepare rehearsal /tmp/rehearsal --share 0.1
    """
    from scanet.data import rehearsal

    counts = rehearsal.write(folder, share=share)
    print(f"{', '.join(f'{number:,} {split}' for split, number in counts.items())} persons, all drawn, in {folder}")


def _prepare(dataset: str, folder: Path, resolution: int, output: Path | None) -> None:
    import os
    import time

    import torch

    from scanet import experiment
    from scanet.data.person import Reading
    from scanet.device import peak_memory
    from scanet.files import data_folder
    from scanet.plan import duration, size

    photographs: set[str] = set()

    def tell(reading: Reading) -> None:
        print(reading)
        photographs.update(person.image for person in reading.persons)

    path = output or data_folder() / f"{dataset}-{resolution}.h5"
    start = time.perf_counter()
    report = experiment.prepare(dataset, folder, path, resolution, on_read=tell)
    seconds = time.perf_counter() - start
    again = f" ({report.resumed} of them from before)" if report.resumed else ""
    outside = f", {len(report.outside)} persons outside their photograph" if report.outside else ""
    print(f"{report.stored} persons in {path}{again}, {len(report.skipped)} photographs skipped{outside}")
    print(
        f"{len(photographs):,} photographs in {duration(seconds)}, "
        f"{len(photographs) / seconds / (os.cpu_count() or 1):.1f} a second and core; peak memory "
        f"{size(peak_memory(torch.device('cpu')))}, store {size(path.stat().st_size)}"
    )


@app.command()
def train(
    module: Annotated[str, typer.Argument(help=f"A row of Table 2: {', '.join(ROWS)}.")] = "SSA",
    preset: Annotated[str, typer.Option(help=", ".join(PRESETS))] = "quick",
    seed: int = 0,
    data: Annotated[str | None, typer.Option(help="The data set's folder, or a store.")] = None,
    epochs: Annotated[int | None, typer.Option(help="Default: the preset's.")] = None,
    tta: Annotated[str, typer.Option(help="none, flip or six-scale.")] = "flip",
) -> None:
    """Train and evaluate a row, or show the record of a run that is finished, as `ablation.ipynb` does.

    Example: scanet train SSA --preset quick

    On several GPUs: accelerate launch --multi_gpu -m scanet.cli train SSA --preset paper
    """
    from scanet import experiment, processes, tables

    settings = resolve(module=module, preset=preset, seed=seed, data=data, epochs=epochs, tta=tta)
    run = experiment.run_or_load(settings)
    if processes.rank() > 0:
        return
    print(run)
    print(tables.ablation_row(run.record, settings.tta).to_string(float_format="{:.2f}".format, na_rep=""))


@app.command()
def plan(
    module: Annotated[str, typer.Option(help=f"A row of Table 2: {', '.join(ROWS)}.")] = "SSA",
    preset: Annotated[str, typer.Option(help=", ".join(PRESETS))] = "quick",
    final: Annotated[bool, typer.Option("--final", help="The final model's two stages instead of a row.")] = False,
    stacks: Annotated[int | None, typer.Option(help="Default: the preset's, 4 for the final model.")] = None,
    epochs: Annotated[int | None, typer.Option(help="Default: the preset's.")] = None,
    data: Annotated[str | None, typer.Option(help="A store; default: the preset's, else drawn persons.")] = None,
    as_json: AsJson = False,
) -> None:
    """Measure a few steps of a run on this machine and say what the whole of it needs: hours, memory, disk.

    Example: scanet plan --preset paper --final
    """
    from scanet import experiment
    from scanet.config import FINAL_STACKS, final_stages

    stacks = stacks or (FINAL_STACKS if final else None)
    settings = resolve(module=module, preset=preset, stacks=stacks, epochs=epochs, data=data)
    found = experiment.plan(final_stages(settings) if final else [settings])
    print(json.dumps(found.as_dict(), indent=2) if as_json else found)


@app.command()
def evaluate(
    what: Annotated[Path, typer.Argument(help="A run's folder, or anybody's prediction file (.h5, .mat).")],
    truth: Annotated[Path | None, typer.Option(help="For a prediction file: Newell .h5 or toolkit .mat.")] = None,
    data: Annotated[Path | None, typer.Option(help="For a run: another store to evaluate it on.")] = None,
    key: Annotated[str | None, typer.Option(help="The variable in the prediction file, if not `preds`.")] = None,
    tta: Annotated[str, typer.Option(help="none, flip or six-scale.")] = "flip",
    as_json: AsJson = False,
) -> None:
    """PCKh@0.5 of a finished run or of a prediction file, in every convention.

    Example: scanet evaluate predictions.h5 --truth valid.h5
    """
    from scanet import experiment, tables
    from scanet.pckh import CONVENTIONS

    if what.is_dir():
        settings = resolve(tta=tta)
        scores, about = experiment.evaluate(what, data, settings.tta, progress=not as_json)
    elif truth is None:
        raise UserError(f"{what} is no folder of a run: for a prediction file, give --truth FILE as well")
    else:
        scores, about = experiment.evaluate_file(what, truth, key), f"{what.name} against {truth.name}"
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
def submit(
    run: Annotated[Path, typer.Argument(help="A run's folder.")],
    mat: Annotated[Path, typer.Option(help="MPII's mpii_human_pose_v1_u12_1.mat.")],
    data: Annotated[Path, typer.Option(help="The store that `scanet prepare mpii` filled.")],
    tta: Annotated[str, typer.Option(help="none, flip or six-scale.")] = "flip",
    output: Annotated[Path, typer.Option(help="The file to write.")] = Path("pred_keypoints_mpii.mat"),
) -> None:
    """Predict MPII's test persons and write the file that its server scores.

    Example: scanet submit experiments/results/paper/ablation/SSA-s0 --mat mpii/mpii_human_pose_v1_u12_1.mat
    --data data/mpii-320.h5
    """
    from scanet import experiment
    from scanet.device import describe, pick_device

    settings = resolve(tta=tta)
    print(f"Device: {describe(pick_device())}")
    images, persons = experiment.submit(run, mat, data, settings.tta, output)
    print(f"{persons} persons in {images} test images: {output}")


if __name__ == "__main__":
    main()
