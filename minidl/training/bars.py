"""Progress bars of tqdm, on a terminal and in a notebook."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterable, Iterator
from typing import Any


def has_bar() -> bool:
    """Return whether a bar makes sense: the output goes to a terminal or to a notebook."""
    isatty = getattr(sys.stderr, "isatty", None)  # without a console, stderr is None
    return "ipykernel" in sys.modules or (isatty is not None and isatty())


def make_bar(**options: Any) -> Any:
    """Return a tqdm bar that suits a terminal or a notebook."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a notebook without ipywidgets gets a text bar
        from tqdm.auto import tqdm

        return tqdm(**options)


def with_bar(items: Iterable[Any], total: int | None, description: str, verbose: bool) -> Iterator[Any]:
    """Yield the items; show a bar if ``verbose`` and has_bar()."""
    if not (verbose and has_bar()):
        yield from items
        return
    with make_bar(total=total, desc=description, unit="batch", leave=False) as bar:
        for item in items:
            yield item
            bar.update()
