"""Progress bars: of tqdm on a terminal, of our own in a notebook."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterable, Iterator
from typing import Any

from minidl.training.notebook import NotebookBar, in_notebook


def has_bar() -> bool:
    """Return whether a bar makes sense: the output goes to a terminal or to a notebook."""
    isatty = getattr(sys.stderr, "isatty", None)  # without a console, stderr is None
    return in_notebook() or (isatty is not None and isatty())


def make_bar(**options: Any) -> Any:
    """Return a tqdm bar for a terminal."""
    from tqdm import TqdmMonitorWarning, tqdm

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", TqdmMonitorWarning)  # its thread, which cannot be started everywhere
        return tqdm(**options)


def with_bar(items: Iterable[Any], total: int | None, description: str, verbose: bool) -> Iterator[Any]:
    """Yield the items; show a bar if ``verbose`` and has_bar()."""
    if not (verbose and has_bar()):
        yield from items
    elif in_notebook():
        bar = NotebookBar(total, description)
        try:
            for item in items:
                yield item
                bar.update()
        finally:
            bar.clear()
    else:
        with make_bar(total=total, desc=description, unit="batch", leave=False) as terminal_bar:
            for item in items:
                yield item
                terminal_bar.update()
