"""History: what happened during a training, as lists."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, fields
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from minidl import files
from minidl.training.history_tables import HistoryTables
from minidl.training.plot import training_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(repr=False)
class History(HistoryTables):
    """What happened during a training, with ways to save and plot it; HistoryTables lists its attributes."""

    def __repr__(self) -> str:
        last = {name: column[-1] for name, column in self.steps.items() if column}
        figures = ", ".join(f"{name} {value:.4g}" for name, value in last.items())
        validated = ", ".join(
            f"{name} {column[-1]:.4g}"
            for name, column in self.validation.items()
            if column and name != "step"
        )
        return (
            f"History({len(self)} step{'s' * (len(self) != 1)}, {figures}"
            + (f"; validation {validated}" if validated else "")
            + (f"; {self.stop_reason}" if self.stop_reason else "")
            + ")"
        )

    def to_dict(self) -> dict[str, Any]:
        """Return everything as dicts, lists, numbers and strings."""
        return asdict(self)

    @classmethod
    def from_dict(cls, content: dict[str, Any]) -> History:
        """Return the History of a to_dict()."""
        return cls(**{f.name: content[f.name] for f in fields(cls)})

    def to_json(self, path: str | PathLike[str] | None = None) -> str:
        """Return everything as JSON, and write it to a file if one is named.

        NaN and infinity become null: JSON has no such numbers.
        """
        text = json.dumps(_finite(self.to_dict()), indent=1, allow_nan=False)
        if path is not None:
            with files.replacing(path) as temporary:
                temporary.write_text(text, encoding="utf-8")
        return text

    @classmethod
    def from_json(cls, path: str | PathLike[str]) -> History:
        """Return the History in a file written by to_json(); null becomes NaN.

        Raises
        ------
        ValueError
            The file is damaged, or holds something else; it is named.
        """
        try:
            content = json.loads(Path(path).read_text(encoding="utf-8"))
            for table in ("steps", "epochs", "validation"):
                for name, column in content[table].items():
                    content[table][name] = [math.nan if value is None else _number(value) for value in column]
                lengths = {len(column) for column in content[table].values()}
                if len(lengths) > 1:
                    raise ValueError(f"the columns of {table} have {sorted(lengths)} rows")
            return cls.from_dict(content)
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            problem = f"{error.args[0]!r} is missing" if isinstance(error, KeyError) else str(error)
            raise ValueError(f"{Path(path)} holds no History: {problem}") from error

    def plot(self, path: str | PathLike[str] | None = None) -> Figure:
        """Draw the training: metrics and loss over the steps, figures beside them.

        Returns the figure, which a notebook shows; it is written to a file if one is named.
        """
        figure = training_figure(self)
        if path is not None:
            from minidl.figures import write

            write(figure, path, dpi=120)
        return figure


def _number(x: Any) -> float:
    if isinstance(x, bool) or not isinstance(x, (int, float)):
        raise TypeError(f"{x!r} is not a number")
    return x


def _finite(x: Any) -> Any:
    """Return dicts and lists with None for NaN and infinity."""
    if isinstance(x, dict):
        return {name: _finite(value) for name, value in x.items()}
    if isinstance(x, (list, tuple)):
        return [_finite(value) for value in x]
    return None if isinstance(x, float) and x - x != 0 else x
