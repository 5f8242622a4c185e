"""HistoryTables: what a History holds, for those that fill or draw it."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

Column = list[float]


@dataclass
class HistoryTables:
    """What happened during a training: tables, and figures about the whole of it.

    Each table is a dict of lists of one length, so ``pandas.DataFrame(history.steps)`` is a table
    with one row for each step.

    Attributes
    ----------
    steps : one entry per step: ``loss``, the metrics, ``learning_rate``
    epochs : one entry per epoch: ``epoch`` (from 1), ``step`` (the last one), ``loss`` and the metrics
        over all its mini-batches, ``seconds`` since the start
    validation : one entry per validation: ``step`` (from 1), ``loss``, the metrics
    settings : the options and properties of the training
    best_step : the step after which the best validation was seen, or None
    returned : ``"best"`` or ``"last"``: which weights the network has now
    stop_reason : why it ended
    seconds : how long it took, all runs together if it was resumed
    """

    steps: dict[str, Column] = field(default_factory=dict)
    epochs: dict[str, Column] = field(default_factory=dict)
    validation: dict[str, Column] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)
    best_step: int | None = None
    returned: str = "last"
    stop_reason: str = ""
    seconds: float = 0.0

    def __len__(self) -> int:
        """Return the number of steps."""
        return len(self.steps.get("loss", ()))


def append(table: dict[str, Column], row: dict[str, float]) -> None:
    """Add a row to a table; what it does not have, or what earlier rows did not have, is NaN."""
    length = max(map(len, table.values()), default=0)
    for name in {**table, **row}:
        table.setdefault(name, [math.nan] * length).append(row.get(name, math.nan))
