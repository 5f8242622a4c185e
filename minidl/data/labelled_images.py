"""LabelledImages: what every function that reads or makes images returns."""

from __future__ import annotations

from typing import NamedTuple

import numpy


class LabelledImages(NamedTuple):
    """Images with their labels and rotation angles where they are known; N observations."""

    images: numpy.ndarray  # (N, height, width, 1) float32, 0 (paper) to 1 (ink)
    labels: numpy.ndarray | None = None  # (N,) int64, 0 to 9
    angles: numpy.ndarray | None = None  # (N,) int16, degrees, clockwise

    def __repr__(self) -> str:
        parts = [f"{name}={x.shape} {x.dtype}" for name, x in self._asdict().items() if x is not None]
        return f"LabelledImages({', '.join(parts)})"
