"""Shapes in annotations are checked while the tests run, and nowhere else."""

from jaxtyping import install_import_hook

with install_import_hook("scanet", "beartype.beartype"):
    import scanet.experiment
    import scanet.figures
    import scanet.predictions
    import scanet.tables  # noqa: F401
