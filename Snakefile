# The whole report of one preset: the notebook of every row of Table 2, those about several runs, the book.
#
#     snakemake --cores 2 --config preset=quick -- book
#
# A notebook trains or loads as its record says; to Snakemake a run is its executed page in the book.
import re
from pathlib import Path

from scanet.config import EPHEMERAL, PRESETS, ROWS
from scanet.report.pages import publish

preset, number = config.get("preset", "quick"), config.get("seeds", 1)
if unknown := [name for name in config if name not in ("preset", "seeds")]:
    raise WorkflowError(f"--config {unknown[0]} is unknown: allowed are preset and seeds")
if preset not in PRESETS:
    raise WorkflowError(f"preset {preset!r} is unknown: allowed are {', '.join(PRESETS)}")
if type(number) is not int or number < 1:
    raise WorkflowError(f"seeds is {number!r}: allowed is their number, from 1 on")
seeds = range(number)

# Table 2's seven rows and Fig. 4's other curve; SCA (§3.3.4) and the controls where there is time. The synthetic
# preset, whose runs are short, also has SSA trained at temperatures that the paper avoided (§3.3.3), and what the
# paper leaves open; on photographs rows are trained three times as long too with one seed, and the small
# preset's Baseline nine times. Whatever a report leaves out can be asked for by its page's name.
TABLE2 = [name for name, row in ROWS.items() if row.place in ("Table 2", "ours")]  # and rows of one's own
LATER = ["SCA", *(name for name, row in ROWS.items() if row.place == "a control")]
REPORT = [*TABLE2, "soft", *(LATER if preset != "quick" else [])]
TAUS = [0.1, 0.25, 0.5] if preset == "synthetic" else []
LONG = {  # how many times as long
    "lspet-small": {3: [*TABLE2, "SCA", "soft"], 9: ["Baseline"]},
    "lspet": {3: ["Baseline", "SSA"]},
}.get(preset, {})
PAGES = [
    *expand("book/runs/{preset}/{row}-s{seed}.ipynb", preset=preset, row=REPORT, seed=seeds),
    *expand("book/runs/{preset}/SSA-s{seed}-tau={tau}.ipynb", preset=preset, seed=seeds, tau=TAUS),
    *(
        f"book/runs/{preset}/{row}-s0-epochs={times * PRESETS[preset]['epochs']}.ipynb"
        for times, rows in LONG.items()
        for row in rows
    ),
]
# The notebooks about several runs: the rows whose runs they use, and the seeds that they are called with. The page is
# the last call's, with seed 0, and shows what has been measured with all of them. None: it takes no seed.
EACH = [*reversed(seeds)]
NOTEBOOKS = {
    "table1": (REPORT, [None]),
    "table2": (REPORT, [None]),
    "budget": (LONG.get(3, []), [None]),
    "errors": (REPORT, [None]),
    "attention": (["MSFI", "SSA", "soft"], EACH),
    "temperature": (["SSA"], EACH),
    "gates": (["SACWA"], EACH),
    "gradients": (["SSA", "soft", "MSFI"], EACH),
    "scales": (["Baseline", "MSFI"], EACH),
    "qualitative": (["SSA"], [0]),
    "stress": (TABLE2, [None]),
    "explore": (["SSA"], [0]),
    "choices": ([], [0]),  # trains for itself
}
DRAWN = [name for name, values in PRESETS.items() if values.get("dataset") == "synthetic"]
# choices takes hours; only drawn people have stress's dials; budget is about runs of several lengths
ONLY = {
    "choices": ["synthetic"],
    "stress": DRAWN,
    "budget": ["lspet-small", "lspet"],
}
SHOWN = [name for name in NOTEBOOKS if preset in ONLY.get(name, PRESETS)]
SOURCES = [*sorted(map(str, Path("scanet").rglob("*.py"))), "experiments/paper.yaml"]


def checked(files):
    """Inputs. Those of a preset whose pages git keeps may be younger than a page: after a checkout all ages are chance,
    and without the weights, which git does not keep, a page would lose its maps. --forcerun makes such a page again.
    """
    return files if preset in EPHEMERAL else [ancient(file) for file in files]


wildcard_constraints:
    preset="[a-z-]+",
    seed=r"\d+",
    notebook="|".join(NOTEBOOKS),
    row="|".join(re.escape(row) for row in ROWS),
    at=r"(-(tau|epochs)=[\d.]+)?",
    on=r"(-train_on=train\+valid)?",


localrules:
    book,


rule book:
    input:
        PAGES,
        expand("book/runs/{preset}/{notebook}.ipynb", preset=preset, notebook=SHOWN),
    shell:
        "jupyter-book build book/ --all -W -n --keep-going --quiet"


rule run:
    input:
        notebook=checked(["experiments/ablation.ipynb"]),
        sources=checked(SOURCES),
    output:
        "book/runs/{preset}/{row}-s{seed}{at}.ipynb",
    log:
        notebook="book/_build/logs/{preset}/{row}-s{seed}{at}.ipynb",  # what is left of a run that failed
    priority: lambda w: list(ROWS).index(w.row)  # the largest networks first, so that no long run is left for the end
    resources:
        gpu=1,
    run:
        other = wildcards.at.removeprefix("-").replace("=", " ")
        shell(
            "papermill {input.notebook} {log.notebook} --no-progress-bar -p module {wildcards.row}"
            f" -p preset {{wildcards.preset}} -p seed {{wildcards.seed}} {'-p ' * bool(other)}{other} < /dev/null"
        )
        title = f"{ROWS[wildcards.row].title} on {wildcards.preset}, {other + ', ' * bool(other)}seed {wildcards.seed}"
        publish(Path(log.notebook), Path(output[0]), title)


rule final:  # asked for by its page's name: it takes longer than all of Table 2
    input:
        notebook=checked(["experiments/final.ipynb"]),
        sources=checked(SOURCES),
    output:
        "book/runs/{preset}/final-s{seed}{on}.ipynb",
    log:
        notebook="book/_build/logs/{preset}/final-s{seed}{on}.ipynb",
    resources:
        gpu=1,
    run:
        other = wildcards.on.removeprefix("-").replace("=", " ")
        shell(
            "papermill {input.notebook} {log.notebook} --no-progress-bar"
            f" -p preset {{wildcards.preset}} -p seed {{wildcards.seed}} {'-p ' * bool(other)}{other} < /dev/null"
        )
        title = f"The final model on {wildcards.preset}, {other + ', ' * bool(other)}seed {wildcards.seed}"
        publish(Path(log.notebook), Path(output[0]), title)


def pages_of(wildcards):
    """The runs that a notebook uses: made before it, each by itself."""
    rows, _ = NOTEBOOKS[wildcards.notebook]
    pages = expand("book/runs/{preset}/{row}-s{seed}.ipynb", preset=preset, row=rows, seed=seeds)
    varied = {"temperature": "-tau=", "budget": "-epochs="}.get(wildcards.notebook)
    return [*pages, *(page for page in PAGES if varied and varied in page)]


rule notebook:
    input:
        notebook=checked(["experiments/{notebook}.ipynb"]),
        sources=checked(SOURCES),
        pages=lambda w: checked(pages_of(w)) if w.preset == preset else [],
    output:
        "book/runs/{preset}/{notebook}.ipynb",
    log:
        notebook="book/_build/logs/{preset}/{notebook}.ipynb",
    resources:
        gpu=1,
    run:
        for seed in NOTEBOOKS[wildcards.notebook][1]:
            seeded = "" if seed is None else f"-p seed {seed}"
            shell(
                "papermill {input.notebook} {log.notebook} --no-progress-bar"
                " -p preset {wildcards.preset} {seeded} < /dev/null"
            )
        publish(Path(log.notebook), Path(output[0]), f"{{}} on {wildcards.preset}")
