"""The reports that checks return; they print as tables."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from html import escape

from minidl.checks.differences import Comparison
from minidl.tables import table

_WIDTH = 100


@dataclass
class GradientReport:
    """What check_gradients compared; all of it agreed.

    Attributes
    ----------
    comparisons : one for each input and Parameter, of each order
    """

    comparisons: list[Comparison] = field(default_factory=list)

    @property
    def kinks(self) -> int:
        """The number of elements or directions at points without a derivative, which were skipped."""
        return sum(comparison.kinks for comparison in self.comparisons)

    @property
    def unclear(self) -> int:
        """The number of elements or directions where the function is too ill-conditioned to measure."""
        return sum(comparison.unclear for comparison in self.comparisons)

    @property
    def checked(self) -> int:
        """The number of elements or directions that were compared with a derivative."""
        return sum(comparison.compared for comparison in self.comparisons)

    def notes(self) -> list[str]:
        """Return a sentence for each comparison that had to leave something out."""
        return [
            f"{c.name}: {c.kinks + c.unclear} of {c.count} {c.unit} skipped: {reasons_not_compared(c)}"
            for c in self.comparisons
            if c.kinks + c.unclear
        ]

    def __str__(self) -> str:
        rows = [
            [
                c.name,
                str(c.given.shape),
                f"{c.compared} {c.unit}",
                f"{c.largest_error:.1e}",
                str(c.kinks + c.unclear or ""),
            ]
            for c in self.comparisons
        ]
        headers = ["gradient of", "shape", "agree", "largest relative error", "skipped"]
        return "\n".join([table(headers, rows), *self.notes()])

    __repr__ = __str__


@dataclass
class ReportRow:
    """One test: its title, "passed", "failed" or "skipped", and the reason.

    Attributes
    ----------
    compared : how many numbers were compared
    cause : the row whose failure explains this one's, or ""
    """

    test: str
    outcome: str
    why: str = ""
    compared: int = 0
    cause: str = ""


@dataclass
class Report:
    """What a check found: one row for each test. It prints as a table; a notebook shows it with colours.

    Attributes
    ----------
    layer : what was checked: the printed name of the layer
    rows : the tests in the order in which they ran
    """

    layer: str
    rows: list[ReportRow] = field(default_factory=list)
    check = "check"

    @property
    def failures(self) -> list[ReportRow]:
        """The tests that failed."""
        return [row for row in self.rows if row.outcome == "failed"]

    @property
    def passed(self) -> bool:
        """Whether no test failed."""
        return not self.failures

    @property
    def compared(self) -> int:
        """How many numbers were compared."""
        return sum(row.compared for row in self.rows)

    def raise_if_failed(self) -> None:
        """Raise LayerError, with the whole report, if a test failed."""
        __tracebackhide__ = True
        if not self.passed:
            raise LayerError(str(self), self)

    def to_json(self) -> str:
        """Return the report as JSON: ``check``, ``subject``, ``passed``, ``compared`` and ``rows``."""
        values = {
            "check": self.check,
            "subject": self.layer,
            "passed": self.passed,
            "compared": self.compared,
        }
        return json.dumps(values | {"rows": [asdict(row) for row in self.rows]}, indent=2)

    def title(self) -> str:
        """Return the first line of the printed report."""
        counts = [f"{sum(r.outcome == o for r in self.rows)} {o}" for o in ("passed", "failed", "skipped")]
        return f"{self.check} {self.layer}: {', '.join(counts)}"

    def __str__(self) -> str:
        rows = [[row.test, row.outcome, _shortened(row.why)] for row in self.rows]
        text = f"{self.title()}\n" + table(["test", "outcome", "why"], rows)
        for row in self.failures:
            if _shortened(row.why) != row.why:
                text += f"\n\n{row.test}:\n  " + row.why.replace("\n", "\n  ")
        return text

    __repr__ = __str__

    def failed_first(self) -> str:
        """Return the report with what failed at the beginning, each with all that is known about it."""
        lines = [self.title()]
        for row in self.failures:
            lines.append(f"- {row.test}\n    " + row.why.replace("\n", "\n    "))
        lines += [f"  {row.test}: {row.outcome}, {row.why}" for row in self.rows if row.cause]
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        """Return the report as an HTML table, which notebooks show."""
        lines = [
            f'<tr><td style="text-align:left">{escape(row.test)}</td>'
            f'<td style="color:{_COLOURS[row.outcome]};text-align:left"><b>{row.outcome}</b></td>'
            f'<td style="text-align:right">{row.compared or ""}</td>'
            '<td style="text-align:left"><pre style="margin:0;white-space:pre-wrap">'
            f"{escape(row.why)}</pre></td></tr>"
            for row in self.rows
        ]
        head = "".join(
            f'<th style="text-align:left">{x}</th>' for x in ("test", "outcome", "compared", "why")
        )
        return (
            f"<table><caption>{escape(self.title())}</caption><thead><tr>{head}</tr></thead>"
            f"<tbody>{''.join(lines)}</tbody></table>"
        )


#: Of outcomes, in notebooks; they can be told apart on light and on dark ground.
_COLOURS = {"passed": "#2e8b57", "failed": "#d9362e", "skipped": "#8a8a8a"}


class LayerReport(Report):
    """What check_layer found: one row for each test. It prints as a table."""

    check = "check_layer"


class LayerError(AssertionError):
    """A check failed; the message is the report, and ``report`` is it, too."""

    def __init__(self, message: str, report: Report | None = None):
        super().__init__(message)
        self.report = report


def reasons_not_compared(comparison: Comparison) -> str:
    """Return why elements or directions of a comparison were not compared with a derivative."""
    reasons = []
    for number, why in (
        (comparison.kinks, "at a point without a derivative (such as a relu at 0), between its slopes"),
        (comparison.unclear, "where the function is too ill-conditioned: its quotients do not converge"),
    ):
        if number == comparison.count:
            reasons.append(f"every one of the {number} {comparison.unit} is {why}")
        elif number:
            reasons.append(f"{number} {why}")
    return "; ".join(reasons)


def _shortened(text: str) -> str:
    line = text.partition("\n")[0]
    return line if len(line) <= _WIDTH else line[: _WIDTH - 4] + " ..."
