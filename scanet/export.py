"""A finished run's network as a file of its own, with its card: the model that comes with the package is one."""

from dataclasses import replace
from pathlib import Path

from scanet import results
from scanet.data import prepare
from scanet.data.loader import Persons
from scanet.device import pick_device
from scanet.evaluation import predictions_of, scores
from scanet.files import UserError, check_place, whole_file
from scanet.pckh import CONVENTION
from scanet.photo import WEIGHTS
from scanet.report import card

#: Points of mean PCKh that half precision may cost: our choice, to refuse a broken file. A card says what it cost.
TOLERANCE = 2.0


def write(run_folder: Path, output: Path, data: str | None = None, *, progress: bool = True) -> tuple[float, float]:
    """Write a finished run's network in half precision to `output`, and its card, README.md, beside it.

    Returns the validation persons' mean PCKh by flip test with 32-bit and with 16-bit weights, percent.

    Raises:
        UserError: the weights or the photographs are not on this machine, `output` is in a record's folder, the
            README.md there is no such card, or half precision costs more than `TOLERANCE`.
    """
    record = results.finished(run_folder)
    model = record.trained_model()
    check_place(output)
    if (output.parent / "run.json").exists():
        raise UserError(f"{output} would lie in a run's record and change it: give another --output")
    readme = output.with_name("README.md")
    if output == readme:
        raise UserError(f"{output} is the name of the card: give the weights another one, such as scanet.safetensors")
    if readme.exists() and not readme.read_text(encoding="utf-8", errors="replace").startswith(card.TITLE):
        raise UserError(f"{readme} is no model card, and would be lost: give --output in a folder of its own")
    store = prepare.open_store(replace(record.made_with, data=data), progress=progress)
    if store.fingerprint != record.run["data"]["fingerprint"]:
        raise UserError(f"{store.path} holds other data than {record.name} was made from: give those with --data")
    rows, device = record.predictions()["row"], pick_device()
    persons = Persons(store, rows, device)
    with whole_file(output) as temporary:
        about = {"input_size": str(record.settings["input_size"]), "run": record.name, "key": record.run["key"]}
        results.save_model(model, temporary, half=True, about=about)
        both = [
            scores(
                predictions_of(network.to(device), persons, record.made_with, "flip", progress=progress), store, rows
            )
            for network in (model, results.load_network(temporary))
        ]
        full, half = (found.row(CONVENTION)["Mean"] for found in both)
        if half < full - TOLERANCE:
            raise UserError(
                f"16-bit weights of {record.name} score {half:.2f} where 32-bit ones score {full:.2f}: "
                "keep to the run's folder, as in `scanet predict --model`"
            )
        text = card.card(
            record, both[0], both[1], temporary.stat().st_size, None if output.resolve() == WEIGHTS else output
        )
        with whole_file(readme) as beside:  # the card first: it is the one that an older file has too
            beside.write_text(text, encoding="utf-8")
    return full, half
