"""What a notebook shows of a training: a bar that stays when the notebook is saved, and a Stop button."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from html import escape
from importlib import import_module
from typing import Any

#: How many seconds pass at least between two drawings of a bar.
BAR_SECONDS = 0.2

#: What ends a training in a notebook where there is no button of ours.
HOW_TO_STOP = "to stop early, interrupt the kernel (■): the training ends after the present step"


def in_notebook() -> bool:
    """Return whether the program runs in a notebook, or something else that shows what IPython displays."""
    return getattr(_shell(), "kernel", None) is not None


def _shell() -> Any:
    """Return what runs the cells, or None where there are none; has it no kernel, it is a terminal."""
    ipython = sys.modules.get("IPython")
    return None if ipython is None else ipython.get_ipython()


def show(content: Any) -> Any:
    """Show something in the output of the cell; return a handle whose update() shows another thing there."""
    display: Any = import_module("IPython.display").display
    return display(content, display_id=True)


class Markup:
    """Something that a notebook shows as HTML, and a text for whatever shows no HTML."""

    def __init__(self, html: str, text: str):
        self.html, self.text = html, text

    def _repr_html_(self) -> str:
        return self.html

    def __repr__(self) -> str:
        return self.text


class NotebookBar:
    """A bar with a text beside it, renewed in place in the output of a cell.

    Parameters
    ----------
    total : how many steps there are, or None where nobody knows
    done : how many are made already
    description : the text before the percentage
    """

    def __init__(self, total: int | None, description: str, done: int = 0):
        self.total, self.description, self.done, self.first = total, description, done, done
        self.started = time.monotonic()
        self.shown = self.started
        self.figures = ""
        self.handle = show(self._markup())

    def update(self) -> None:
        """Move on by one step; what is shown is renewed a few times a second."""
        self.done += 1
        if self.is_due():
            self.show()

    def is_due(self) -> bool:
        """Return whether what is shown is old enough to be renewed."""
        return time.monotonic() - self.shown > BAR_SECONDS

    def show(self) -> None:
        """Renew what is shown."""
        self.shown = time.monotonic()
        self.handle.update(self._markup())

    def clear(self) -> None:
        """Show nothing any more."""
        self.handle.update(Markup("", ""))

    def _markup(self) -> Markup:
        elapsed = time.monotonic() - self.started
        parts = [self.description]
        if self.total:
            parts.append(f"{100 * self.done // self.total} %")
        left = ""
        if self.total and self.first < self.done < self.total:
            left = f" of {clock(elapsed * (self.total - self.first) / (self.done - self.first))}"
        parts += [f"{clock(elapsed)}{left}", self.figures]
        text = " · ".join(filter(None, parts))
        place = f' value="{self.done}" max="{self.total}"' if self.total else ""
        style = "width: 12em; height: 1em; vertical-align: middle; margin-right: 0.7em"
        html = f'<div style="font-size: 90%"><progress{place} style="{style}"></progress>{escape(text)}</div>'
        return Markup(html, text)


class StopButton:
    """A button in the output of a cell, which the package ipywidgets draws; it goes away at the end."""

    def __init__(self, pressed: Callable[[], Any]):
        from ipywidgets import Button

        self.button = Button(description="Stop", icon="stop", tooltip="end the training after this step")
        self.button.on_click(lambda button: pressed())
        self.handle = show(self.button)
        _hear_while_the_cell_runs(self.button.comm, pressed)

    def remove(self) -> None:
        """Take the button away: one that is saved with the notebook would do nothing."""
        self.handle.update(Markup("", ""))
        self.button.close()


def _hear_while_the_cell_runs(comm: Any, pressed: Callable[[], Any]) -> None:
    """Have clicks noticed at once, though the kernel answers messages of a widget only after the cell.

    ipykernel 7.4 asks the widget, in the thread that receives messages, which thread shall answer. Before
    that, 7 gave clicks to a thread of their own where the notebook asked for one.
    """
    choose = getattr(comm, "_reply_subshell_for", None)
    if choose is None:
        return

    def choose_and_hear(message: Any, default: Any) -> Any:
        if isinstance(message, dict) and message.get("content") == {"event": "click"}:
            pressed()
        return choose(message, default)

    comm._reply_subshell_for = choose_and_hear


def stop_button(pressed: Callable[[], Any]) -> StopButton | None:
    """Show a Stop button, where a click is heard before the cell has ended; else a line says how to stop."""
    if getattr(_shell().kernel, "_supports_kernel_subshells", False):
        try:
            return StopButton(pressed)
        except ImportError:
            pass  # ipywidgets is an extra
    print(HOW_TO_STOP)
    return None


def clock(seconds: float) -> str:
    """Return a time as minutes and seconds, or hours, minutes and seconds.

    >>> clock(75), clock(3675)
    ('1:15', '1:01:15')
    """
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
