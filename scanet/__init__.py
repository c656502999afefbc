"""Bi-directional Message Passing based SCANet for human pose estimation.

`scanet.load_model()` gives a network that is ready for photographs, see `scanet.photo`.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from scanet.photo import load_model as load_model

__all__ = ["load_model"]


def __getattr__(name: str) -> Any:
    """The settings and the command line's help do without torch, so what needs it is imported when asked for."""
    if name == "load_model":
        from scanet.photo import load_model

        return load_model
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
