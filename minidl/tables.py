"""Tables as text: aligned columns under a header."""

from __future__ import annotations

from collections.abc import Sequence


def table(
    header: Sequence[str], rows: Sequence[Sequence[str] | str], align: str = "l", indent: str = ""
) -> str:
    """Return rows of text under a header, in columns two spaces apart.

    Parameters
    ----------
    rows : each as many cells as the header has, or one string: a heading that spans the columns
    align : a letter for each column, ``"l"`` for left and ``"r"`` for right; the last one holds for all
        columns after it
    indent : what every line but the headings begins with

    Examples
    --------
    >>> print(table(["layer", "values"], [["Dense", "12,000"], ["ReLU", "0"]], align="lr"))
    layer  values
    Dense  12,000
    ReLU        0
    """
    lines: list[Sequence[str] | str] = [header, *rows]
    widths = [max(len(line[i]) for line in lines if not isinstance(line, str)) for i in range(len(header))]
    align = align.ljust(len(header), align[-1])

    def text(line: Sequence[str] | str) -> str:
        if isinstance(line, str):
            return line
        cells = [
            cell.rjust(width) if side == "r" else cell.ljust(width)
            for cell, width, side in zip(line, widths, align, strict=True)
        ]
        return (indent + "  ".join(cells)).rstrip()

    return "\n".join(map(text, lines))
