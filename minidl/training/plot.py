"""The plot of a training: metrics and loss over the steps, figures and settings beside them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy

from minidl.training.history_tables import HistoryTables

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BLUE, ORANGE, INK = "#1f6fb4", "#c8501e", "#222222"


def training_figure(history: HistoryTables, running: str = "") -> Figure:
    """Return the plot of a History.

    Thin lines are single mini-batches, thick lines are smoothed, black dots are validations; grey and
    white bands are epochs.

    Parameters
    ----------
    running : what a training that has not ended is doing; empty after its end
    """
    from minidl.figures import Figure

    figure = Figure(figsize=(11, 6.5), layout="constrained")
    draw(figure, history, running)
    return figure


def draw(figure: Figure, history: HistoryTables, running: str = "") -> None:
    """Draw a History into a figure."""
    figure.clear()
    names = [name for name in history.steps if name != "learning_rate"]
    names += [name for name in history.validation if name not in (*names, "step")]
    names = [*[name for name in names if name != "loss"], "loss"]
    grid = figure.add_gridspec(len(names), 2, width_ratios=[3.2, 1])
    first: Axes | None = None
    for row, name in enumerate(names):
        axes = figure.add_subplot(grid[row, 0], sharex=first)
        first = first or axes
        _curves(axes, history, name, ORANGE if name == "loss" else BLUE)
        _epoch_bands(axes, history, labels=row == 0)
        if row < len(names) - 1:
            axes.tick_params(labelbottom=False)
        else:
            axes.set_xlabel("step")
    beside = figure.add_subplot(grid[:, 1])
    beside.axis("off")
    _figures(beside, history, running)
    figure.suptitle("Training progress", x=0.01, ha="left", fontweight="bold", color=INK)


def _curves(axes: Axes, history: HistoryTables, name: str, color: str) -> None:
    values = numpy.asarray(history.steps.get(name, []), float)
    if len(values):
        steps = numpy.arange(1, len(values) + 1)
        axes.plot(steps, values, color=color, alpha=0.3, linewidth=0.8)
        axes.plot(steps, smoothed(values, _window(history)), color=color, linewidth=1.8, label="training")
    validation = history.validation.get(name, [])
    if validation:
        axes.plot(
            history.validation["step"],
            validation,
            "--o",
            color=INK,
            markersize=3.5,
            linewidth=1,
            label="validation",
        )
        if history.best_step is not None and history.best_step in history.validation["step"]:
            best = validation[history.validation["step"].index(history.best_step)]
            axes.scatter(history.best_step, best, 80, facecolors="none", edgecolors=INK, label="best")
    axes.set_ylabel(_title(name))
    axes.set_ylim(*_range(values, validation))
    axes.set_xlim(0, max(len(values), 1) * 1.01 + 1)
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    if len(values) or validation:
        course = validation or list(values)
        rises = course[-1] > course[0]
        axes.legend(loc="lower right" if rises else "upper right", frameon=False, fontsize="small")


def _range(values: numpy.ndarray, validation: list[float]) -> tuple[float, float]:
    """Return limits for the y axis that show the course well: the first steps may lie outside."""
    shown = numpy.concatenate([values[len(values) // 50 :], numpy.asarray(validation, float)])
    shown = shown[numpy.isfinite(shown)]
    if not len(shown):
        return 0.0, 1.0
    low, high = float(shown.min()), float(shown.max())
    margin = 0.06 * (high - low) or 0.05 * abs(high) or 0.5
    return low - margin, high + margin


def _window(history: HistoryTables) -> int:
    """Return how many steps to smooth over: a quarter of an epoch, but a twentieth of all at most."""
    ends = history.epochs.get("step", [])
    epoch = ends[0] if ends else len(history)
    return int(max(1, min(epoch / 4, len(history) / 20)))


def smoothed(values: numpy.ndarray, window: int) -> numpy.ndarray:
    """Return means over ``2 * window + 1`` neighbours; NaN and infinity are left out.

    Fewer neighbours count at the end and at the beginning, where values change fast: there, a third of
    those before.
    """
    finite = numpy.isfinite(values)
    sums = numpy.concatenate([[0.0], numpy.cumsum(numpy.where(finite, values, 0.0))])
    counts = numpy.concatenate([[0], numpy.cumsum(finite)])
    places = numpy.arange(len(values))
    half = numpy.minimum(places // 3, window)
    low, high = places - half, numpy.minimum(places + half + 1, len(values))
    means: numpy.ndarray = (sums[high] - sums[low]) / numpy.maximum(counts[high] - counts[low], 1)
    return means


def _epoch_bands(axes: Axes, history: HistoryTables, labels: bool) -> None:
    ends = [int(step) for step in history.epochs.get("step", [])]
    every = max(1, len(ends) // 10)
    for number, (start, end) in enumerate(zip([0, *ends], ends, strict=False), 1):
        if number % 2 == 0:
            axes.axvspan(start, end, color="black", alpha=0.04, linewidth=0)
        if labels and number % every == 0:
            axes.text(
                (start + end) / 2,
                1.01,
                f"epoch {number}" if number == every else f"{number}",
                transform=axes.get_xaxis_transform(),
                ha="center",
                fontsize="x-small",
                color="grey",
            )


def _figures(axes: Axes, history: HistoryTables, running: str) -> None:
    """Write the final figures and the settings beside the curves."""
    settings = history.settings
    best = history.best_step
    shown = history.validation.get("step", [])
    row = shown.index(best) if best in shown else len(shown) - 1
    results = [
        (f"validation {_title(name)}", _number(column[row]))
        for name, column in history.validation.items()
        if name != "step" and column
    ]
    results += [
        (f"training {_title(name)}", _number(column[-1]))
        for name, column in history.epochs.items()
        if name not in ("epoch", "step", "seconds") and column
    ]
    network = f"best, step {best}" if history.returned == "best" else "last step"
    epochs = history.epochs.get("epoch", [])
    cycle = [
        ("epoch", f"{len(epochs)} of {settings.get('epochs', len(epochs))}"),
        ("step", f"{len(history):,}"),
        ("steps per epoch", settings.get("steps_per_epoch")),
        ("mini-batch", settings.get("batch_size")),
    ]
    validation = [
        ("frequency", _frequency(settings.get("validation_frequency"))),
        ("patience", settings.get("validation_patience")),
    ]
    rates = history.steps.get("learning_rate", [])
    other = [
        ("optimizer", settings.get("optimizer")),
        ("learning rate", _number(rates[-1]) if rates else None),
        ("schedule", str(settings.get("learning_rate_schedule", "")).partition("(")[0] or None),
        ("L2", settings.get("l2")),
        ("seed", settings.get("seed")),
        ("device", settings.get("device")),
        ("parameters", f"{settings['parameters']:,}" if "parameters" in settings else None),
    ]
    state = running or history.stop_reason
    result_rows = [*results, ("network", None if running else network)]
    groups: list[tuple[str, list[tuple[str, Any]]]] = [
        ("RESULT", result_rows),
        ("TIME", [("elapsed", _clock(history.seconds))]),
        ("CYCLE", cycle),
        ("VALIDATION", validation if shown else []),
        ("SETTINGS", other),
    ]
    lines: list[tuple[str, str | None]] = []
    for title, rows in groups:
        kept = [(name, value) for name, value in rows if value is not None]
        if kept:
            lines += [(title, None), *((name, _short(value)) for name, value in kept), ("", None)]
    axes.text(0.0, 1.0, _wrapped(state), fontsize="small", va="top", color=INK, transform=axes.transAxes)
    y, height = 0.91, min(0.036, 0.91 / max(len(lines), 1))
    for name, value in lines:
        heading = value is None
        style: dict[str, Any] = {"fontsize": 8, "va": "top", "transform": axes.transAxes}
        axes.text(
            0.0, y, name, color="grey" if heading else INK, fontweight="bold" if heading else None, **style
        )
        if value is not None:
            axes.text(1.0, y, value, ha="right", color=INK, **style)
        y -= height if name else 0.5 * height


def _title(name: str) -> str:
    special = {"f_score": "F-score", "r_squared": "R²"} | {
        n: n.upper() for n in ("rmse", "mae", "mape", "auc")
    }
    return special.get(name, name.replace("_", " "))


def _wrapped(text: str) -> str:
    import textwrap

    return "\n".join(textwrap.wrap(text, 34)[:2])


def _number(value: float) -> str:
    return f"{value:.4g}"


def _short(value: Any) -> str:
    text = "none" if value == numpy.inf else str(value)
    return text if len(text) <= 18 else f"{text[:15]}..."


def _frequency(value: Any) -> str | None:
    return None if value is None else "each epoch" if value == "epoch" else f"every {value} steps"


def _clock(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}" if minutes >= 60 else f"{minutes} min {rest} s"


def has_windows() -> bool:
    """Return whether matplotlib can open windows here."""
    import matplotlib
    from matplotlib.backends.registry import BackendFilter, backend_registry

    windowed: list[str] = backend_registry.list_builtin(BackendFilter.INTERACTIVE)  # type: ignore[no-untyped-call]
    return matplotlib.get_backend().lower() in map(str.lower, windowed)
