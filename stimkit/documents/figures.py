"""Figures of matplotlib, which is not installed with stimkit: made without its global state, and shown by notebooks."""

from __future__ import annotations

import importlib
import io
from typing import TYPE_CHECKING

from stimkit.errors import UsageError

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def new_figure(size: tuple[float, float]) -> Figure:
    """An empty figure of a width and height in inches. Raises `UsageError` where matplotlib is not installed."""
    try:
        module = importlib.import_module("matplotlib.figure")
    except ImportError:
        raise UsageError('figures need matplotlib: pip install "stimkit[plot]"') from None
    kind = type("Figure", (module.Figure,), {"_repr_png_": png_of})  # a plain one shows itself by its name only
    figure: Figure = kind(figsize=size, layout="constrained")
    return figure


def png_of(figure: Figure) -> bytes:
    """A figure as PNG, in which nothing says when and by what it was drawn."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=150, metadata={"Software": None})
    return buffer.getvalue()
