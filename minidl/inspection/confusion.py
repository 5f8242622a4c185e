"""A picture of a confusion matrix."""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike
from typing import TYPE_CHECKING, Any

import numpy

from minidl.tensor import as_tensor

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def plot_confusion_matrix(
    matrix: Any, class_names: Sequence[str] | None = None, path: str | PathLike[str] | None = None
) -> Figure:
    """Draw a matrix of `confusion_matrix`: the right classes are rows, the predicted ones columns.

    Colours show the share of each row, numbers the counts (or sums of weights). Beside each row stands
    the share of the class that was found (recall), under each column the share of the predictions that
    are right (precision).

    Parameters
    ----------
    matrix : (classes, classes)
    class_names : by default the class numbers
    path : where to write the picture; the suffix decides the format
    """
    from minidl.figures import Figure, write

    counts = as_tensor(matrix).numpy().astype(float)
    if counts.ndim != 2 or counts.shape[0] != counts.shape[1] or not counts.size:
        raise ValueError(f"plot_confusion_matrix takes a matrix (classes, classes), got {counts.shape}")
    names = [str(name) for name in (range(len(counts)) if class_names is None else class_names)]
    if len(names) != len(counts):
        raise ValueError(f"plot_confusion_matrix: {len(counts)} classes, but {len(names)} class_names")
    right, rows, columns = counts.diagonal(), counts.sum(axis=1), counts.sum(axis=0)
    with numpy.errstate(invalid="ignore", divide="ignore"):
        shares, found, precise = counts / rows[:, None], right / rows, right / columns
    size = max(4.0, 0.55 * len(counts) + 2)
    figure = Figure(figsize=(size + 0.6, size), layout="constrained")
    axes = figure.add_subplot()
    axes.imshow(numpy.nan_to_num(shares), cmap="Blues", vmin=0, vmax=1)
    for i, j in zip(*numpy.nonzero(counts), strict=True):
        colour = "white" if shares[i, j] > 0.5 else "black"
        axes.text(j, i, f"{counts[i, j]:g}", ha="center", va="center", color=colour, fontsize=8)
    labels = ["" if numpy.isnan(share) else f"{share:.0%}" for share in precise]
    axes.set_xticks(
        range(len(names)), [f"{name}\n{label}" for name, label in zip(names, labels, strict=True)]
    )
    axes.set_yticks(range(len(names)), names)
    beside = axes.secondary_yaxis("right")
    beside.set_yticks(range(len(names)), ["" if numpy.isnan(share) else f"{share:.0%}" for share in found])
    for axis in (axes, beside):
        axis.tick_params(length=0)
    axes.set_xlabel("predicted class, and how much of it is right")
    axes.set_ylabel("right class")
    beside.set_ylabel("how much of the class is found")
    axes.set_title(f"{right.sum() / counts.sum():.2%} of {counts.sum():g} right", fontsize=11)
    write(figure, path, dpi=120)
    return figure
