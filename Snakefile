# The whole report of one preset: the notebook of every row of Table 2, the table, the book.
#
#     snakemake --cores 2 --config preset=quick -- book
#
# A notebook trains or loads as its record says; to Snakemake a run is its executed page in the book.
import re

import nbformat
from scanet.config import EPHEMERAL, PRESETS, ROWS

preset = config.get("preset", "quick")
seeds = range(int(config.get("seeds", 1)))
if preset not in PRESETS:
    raise WorkflowError(f"preset {preset!r} is unknown: allowed are {', '.join(PRESETS)}")

# Table 2's seven rows; SCA and soft (§3.3.4, Fig. 4) are a papermill call away, and fit no quarter of an hour.
REPORT = [name for name, row in ROWS.items() if row.place == "Table 2"]
PAGES = expand("book/runs/{preset}/{row}-s{seed}.ipynb", preset=preset, row=REPORT, seed=seeds)
TABLES = ["table1", "table2"]
CODE = [*glob_wildcards("scanet/{module}.py")[0]]
SOURCES = [f"scanet/{module}.py" for module in CODE] + ["experiments/paper.yaml"]


wildcard_constraints:
    preset="[a-z-]+",
    seed=r"\d+",
    table="|".join(TABLES),
    row="|".join(re.escape(row) for row in ROWS),


localrules:
    book,


rule book:
    input:
        PAGES,
        expand("book/runs/{preset}/{table}.ipynb", preset=preset, table=TABLES),
        f"book/runs/{preset}/explore.ipynb",
        f"book/runs/{preset}/stress.ipynb" if preset in EPHEMERAL else [],  # drawn people have dials
    shell:
        "jupyter-book build book/ --all -W -n --keep-going --quiet"


def publish(executed, page, title):
    """A page of its own title, for pages that are made from one template."""
    notebook = nbformat.read(executed, as_version=4)
    notebook.cells[0].source = re.sub("^# .*", f"# {title}", notebook.cells[0].source)
    nbformat.write(notebook, page)


rule data:
    output:
        touch("data/.{preset}-ready"),
    shell:
        "scanet prepare synthetic --preset {wildcards.preset}"


rule run:
    input:
        notebook="experiments/ablation.ipynb",
        sources=SOURCES,
        data=lambda w: f"data/.{w.preset}-ready" if w.preset in EPHEMERAL else [],
    output:
        "book/runs/{preset}/{row}-s{seed}.ipynb",
    log:
        notebook="book/_build/logs/{preset}/{row}-s{seed}.ipynb",  # what is left of a run that failed
    priority: lambda w: list(ROWS).index(w.row)  # the largest networks first, so that no long run is left for the end
    resources:
        gpu=1,
    run:
        shell(
            "papermill {input.notebook} {log.notebook} --no-progress-bar"
            " -p module {wildcards.row} -p preset {wildcards.preset} -p seed {wildcards.seed} < /dev/null"
        )
        title = f"{ROWS[wildcards.row].title} on {wildcards.preset}, seed {wildcards.seed}"
        publish(log.notebook, output[0], title)


rule final:  # asked for by its page's name: it takes longer than all of Table 2
    input:
        notebook="experiments/final.ipynb",
        sources=SOURCES,
        data=lambda w: f"data/.{w.preset}-ready" if w.preset in EPHEMERAL else [],
    output:
        "book/runs/{preset}/final-s{seed}.ipynb",
    log:
        notebook="book/_build/logs/{preset}/final-s{seed}.ipynb",
    resources:
        gpu=1,
    run:
        shell(
            "papermill {input.notebook} {log.notebook} --no-progress-bar"
            " -p preset {wildcards.preset} -p seed {wildcards.seed} < /dev/null"
        )
        publish(log.notebook, output[0], f"The final model on {wildcards.preset}, seed {wildcards.seed}")


rule table:
    input:
        notebook="experiments/{table}.ipynb",
        sources=SOURCES,
        pages=lambda w: PAGES if w.preset == preset else [],
    output:
        "book/runs/{preset}/{table}.ipynb",
    log:
        notebook="book/_build/logs/{preset}/{table}.ipynb",
    run:
        shell("papermill {input.notebook} {log.notebook} --no-progress-bar -p preset {wildcards.preset} < /dev/null")
        publish(log.notebook, output[0], f"Table {wildcards.table[-1]} on {wildcards.preset}")


rule about_runs:
    input:
        notebook="experiments/{page}.ipynb",
        sources=SOURCES,
        pages=lambda w: PAGES if w.preset == preset else [],
    output:
        "book/runs/{preset}/{page}.ipynb",
    log:
        notebook="book/_build/logs/{preset}/{page}.ipynb",
    wildcard_constraints:
        page="explore|stress",
    run:
        shell("papermill {input.notebook} {log.notebook} --no-progress-bar -p preset {wildcards.preset} < /dev/null")
        publish(log.notebook, output[0], f"{wildcards.page.capitalize()} on {wildcards.preset}")
