"""Shapes in annotations are checked while the tests run, and nowhere else."""

from jaxtyping import install_import_hook

# As for mypy, an int will do where a float is annotated.
CHECKER = "beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True))"

with install_import_hook("scanet", CHECKER):
    import scanet.experiment
    import scanet.figures
    import scanet.predictions
    import scanet.tables  # noqa: F401
