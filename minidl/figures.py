"""Figures of matplotlib that a notebook shows by itself, and how they are written to files.

This module imports matplotlib: whoever draws imports it in the function that draws.
"""

from __future__ import annotations

from io import BytesIO
from os import PathLike
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure as PlainFigure

from minidl import files


class Figure(PlainFigure):
    """A figure that is shown where it is the last line of a notebook's cell, without any set-up.

    matplotlib teaches notebooks to show its figures when pyplot is imported in them, and only then.
    """

    def _repr_png_(self) -> tuple[bytes, dict[str, int]]:
        """Return a PNG of twice the resolution, and the size in which to show it: screens are dense."""
        png = BytesIO()
        self.savefig(png, format="png", dpi=2 * self.dpi)
        width, height = self.get_size_inches() * self.dpi
        return png.getvalue(), {"width": round(width), "height": round(height)}


def write(figure: PlainFigure, path: str | PathLike[str] | None, dpi: int) -> None:
    """Write a figure to a file, in the format that its name ends with, or PNG; None writes nothing."""
    if path is None:
        return
    options: dict[str, Any] = {"dpi": dpi, "format": Path(path).suffix.lstrip(".") or "png"}
    with files.replacing(path) as temporary:
        figure.savefig(temporary, **options)
