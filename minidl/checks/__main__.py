"""``python -m minidl.checks module:factory``: check layers from the command line, or before each commit.

Examples
--------
    python -m minidl.checks my_layers:make_block --shape 8,8,3
    python -m minidl.checks my_layers:cases --json report.json

The factory returns a Layer, whose input shape ``--shape`` gives; or a pair (layer, input_shape); or a list
of such pairs. It may also be a Layer. The exit status is 0 if everything passed, 1 if a test failed, and 2 if
nothing could be checked.
"""

from __future__ import annotations

import argparse
import importlib
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from minidl.checks.layers import check_layer
from minidl.layers.layer import Layer


def main(arguments: Sequence[str] | None = None) -> int:
    """Check what the arguments name, print the reports, and return the exit status."""
    parser = argparse.ArgumentParser("python -m minidl.checks", description="Check layers of minidl.")
    parser.add_argument("targets", nargs="+", metavar="module:factory", help="what returns the layers")
    parser.add_argument(
        "--shape", action="append", type=_shape, help="of one observation, as 8,8,3; one per input"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the random inputs")
    parser.add_argument(
        "--order", type=int, default=1, choices=(1, 2), help="2 checks second derivatives, too"
    )
    parser.add_argument(
        "--skip", action="append", default=[], metavar="ROW=REASON", help="a row to leave out"
    )
    parser.add_argument("--json", metavar="FILE", help="where to write the reports")
    options = parser.parse_args(arguments)
    skip = dict(entry.partition("=")[::2] for entry in options.skip)
    reports = []
    try:
        for target in options.targets:
            for layer, shape in _cases(target, options.shape):
                reports.append(check_layer(layer, shape, seed=options.seed, order=options.order, skip=skip))
                print(reports[-1], end="\n\n")
    except (ImportError, AttributeError, TypeError, ValueError) as error:
        print(f"python -m minidl.checks: {error}", file=sys.stderr)
        return 2
    if options.json:
        text = json.dumps([json.loads(report.to_json()) for report in reports], indent=2)
        Path(options.json).write_text(text + "\n", encoding="utf-8")
    return 0 if all(report.passed for report in reports) else 1


def _shape(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(",") if part.strip())


def _cases(target: str, shapes: list[tuple[int, ...]] | None) -> list[tuple[Layer, Any]]:
    """Return the layers that a target names, each with its input shape."""
    module, colon, name = target.partition(":")
    if not colon:
        raise ValueError(f"{target!r} should be module:factory")
    if "" not in sys.path:
        sys.path.insert(0, "")  # modules of the folder in which the command runs
    found: Any = importlib.import_module(module)
    for part in name.split("."):
        found = getattr(found, part)
    if not isinstance(found, Layer) and callable(found):
        found = found()
    if isinstance(found, Layer):
        if not shapes:
            raise ValueError(f"{target} is a Layer: give the shape of one observation, as --shape 8,8,3")
        return [(found, shapes[0] if len(shapes) == 1 else shapes)]
    cases = [found] if isinstance(found, tuple) else list(found)
    for case in cases:
        if not (isinstance(case, tuple) and len(case) == 2 and isinstance(case[0], Layer)):
            raise TypeError(f"{target} gives {type(case).__name__}: a pair (layer, input_shape) is needed")
    return cases


if __name__ == "__main__":
    sys.exit(main())
