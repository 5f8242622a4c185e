"""The same functions and mistakes through minidl, torch.autograd.gradcheck and jax.test_util.check_grads.

``python docs/checks.py`` prints the table of docs/checks.md, ``--write`` replaces it there. It needs PyTorch
and JAX. Each case is a function with a gradient rule, written once with names that the three libraries
share; all three check it in float64 with the defaults of their checks.
"""

from __future__ import annotations

import argparse
import itertools
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy

PAGE = Path(__file__).with_name("checks.md")
BEGIN, END = "<!-- table -->", "<!-- end of table -->"
_numbers = itertools.count()


@dataclass
class Case:
    """A function, its gradient rule, and around it what is done with the result.

    ``forward(m, x)`` and ``rule(m, g, x)`` compute with the module ``m``; ``after(m, y, x)`` is
    differentiated by the library itself.
    """

    what: str
    is_right: bool
    at: list[float]
    forward: Callable[..., Any]
    rule: Callable[..., Any]
    after: Callable[..., Any] = lambda m, y, x: y
    order: int = 1


def relu(m: Any, x: Any) -> Any:
    """Return the larger of x and 0."""
    return m.where(x > 0, x, 0 * x)


ORDINARY = [0.4, -1.3, 2.1, 0.9]
MASK = numpy.array([True, False, True, True])
CASES = [
    Case("x²", True, ORDINARY, lambda m, x: x * x, lambda m, g, x: 2 * x * g),
    Case(
        "tanh(x)", True, ORDINARY, lambda m, x: m.tanh(x), lambda m, g, x: g * (1 - m.tanh(x) ** 2), order=2
    ),
    Case("relu(x), one x exactly 0", True, [0.0, 1.0, -1.0, 2.0], relu, lambda m, g, x: g * (x > 0)),
    Case("relu(x), one x at 3e-7", True, [3e-7, 1.0, -1.0, 2.0], relu, lambda m, g, x: g * (x > 0)),
    Case(
        "abs(x), one x exactly 0",
        True,
        [0.0, 1.0, -1.0, 2.0],
        lambda m, x: abs(x),
        lambda m, g, x: g * m.sign(x),
    ),
    Case("1 / x at 1e-5", True, [1e-5, 2e-5], lambda m, x: 1 / x, lambda m, g, x: -g / x**2),
    Case(
        "sin(1e5 x)", True, [0.3, 0.7], lambda m, x: m.sin(1e5 * x), lambda m, g, x: 1e5 * g * m.cos(1e5 * x)
    ),
    Case("exp(30 x)", True, [0.5, 1.0], lambda m, x: m.exp(30 * x), lambda m, g, x: 30 * g * m.exp(30 * x)),
    Case("log(x) at 1e-6", True, [1e-6, 1.0], lambda m, x: m.log(x), lambda m, g, x: g / x),
    Case("x + 1e9", True, ORDINARY, lambda m, x: x + 1e9, lambda m, g, x: g),
    Case("(x + 1e6) - 1e6", True, ORDINARY, lambda m, x: (x + 1e6) - 1e6, lambda m, g, x: g),
    Case(
        "-inf where a mask says so",
        True,
        ORDINARY,
        lambda m, x: x * x,
        lambda m, g, x: 2 * x * g,
        lambda m, y, x: m.where(m.asarray(MASK), y, -numpy.inf),
    ),
    Case("x², the factor 2 forgotten", False, ORDINARY, lambda m, x: x * x, lambda m, g, x: x * g),
    Case("sin(x), wrong sign", False, ORDINARY, lambda m, x: m.sin(x), lambda m, g, x: -g * m.cos(x)),
    Case(
        "sin(x), g ignored",
        False,
        ORDINARY,
        lambda m, x: m.sin(x),
        lambda m, g, x: m.cos(x) + 0 * g,
        lambda m, y, x: 3 * y,
    ),
    Case("x², wrong by 1 in 10,000", False, ORDINARY, lambda m, x: x * x, lambda m, g, x: 2.0002 * x * g),
    Case("relu(x), turned around", False, ORDINARY, relu, lambda m, g, x: g * (x < 0)),
    Case(
        "relu(x) that gives 5 at 0",
        False,
        [0.0, 1.0, -1.0, 2.0],
        relu,
        lambda m, g, x: g * m.where(x == 0, 5.0 + 0 * x, 1.0 * (x > 0)),
    ),
    Case(
        "a gradient of 1e-8, wrong sign",
        False,
        ORDINARY,
        lambda m, x: 1e-8 * m.sin(x),
        lambda m, g, x: -1e-8 * g * m.cos(x),
    ),
    Case(
        "x², factor 2 forgotten, behind a mask of -inf",
        False,
        ORDINARY,
        lambda m, x: x * x,
        lambda m, g, x: x * g,
        lambda m, y, x: m.where(m.asarray(MASK), y, -numpy.inf),
    ),
    Case(
        "x², factor 2 forgotten, behind a mask of -1e9",
        False,
        ORDINARY,
        lambda m, x: x * x,
        lambda m, g, x: x * g,
        lambda m, y, x: m.where(m.asarray(MASK), y, -1e9),
    ),
    Case(
        "x², factor 2 forgotten, beside an output 1e9 times larger",
        False,
        ORDINARY,
        lambda m, x: x * x,
        lambda m, g, x: x * g,
        lambda m, y, x: m.stack([y, 1e9 * x]),
    ),
    Case(
        "x², whose second derivative is wrong",
        False,
        ORDINARY,
        lambda m, x: x * x,
        lambda m, g, x: 2 * m.constant(x) * g,
        order=2,
    ),
]


# --- the three checks -----------------------------------------------------------------------------


class Names:
    """A module with a few names more."""

    def __init__(self, module: Any, **names: Any):
        self.module, self.names = module, names

    def __getattr__(self, name: str) -> Any:
        return self.names[name] if name in self.names else getattr(self.module, name)


def by_minidl(case: Case) -> str | None:
    """Return what minidl says, or None if it is content."""
    import minidl as dl
    from minidl.checks import GradientError, check_gradients
    from minidl.primitives.primitive import elementwise

    m = Names(dl, constant=lambda x: x.detach(), asarray=dl.tensor)

    def forward(xp: Any, x: Any, out: Any = None) -> Any:
        y = case.forward(xp, x)
        if out is not None:
            out[...] = y
        return y

    f = elementwise(f"case_{next(_numbers)}", forward, gradients=(lambda g, out, x: case.rule(m, g, x),))
    try:
        check_gradients(lambda x: case.after(m, f(x), x), numpy.array(case.at), order=case.order)
    except GradientError as error:
        return str(error)
    return None


def by_torch(case: Case) -> str | None:
    """Return what gradcheck says, or None if it is content."""
    import torch

    m = Names(torch, constant=lambda x: x.detach())

    class Function(torch.autograd.Function):
        @staticmethod
        def forward(context: Any, x: Any) -> Any:
            context.save_for_backward(x)
            return case.forward(m, x)

        @staticmethod
        def backward(context: Any, g: Any) -> Any:
            return case.rule(m, g, *context.saved_tensors)

    x = torch.tensor(case.at, dtype=torch.float64, requires_grad=True)
    check = torch.autograd.gradcheck if case.order == 1 else torch.autograd.gradgradcheck
    try:
        check(lambda x: case.after(m, Function.apply(x), x), (x,))
    except Exception as error:
        return str(error)
    return None


def by_jax(case: Case) -> str | None:
    """Return what check_grads says, or None if it is content."""
    import jax
    from jax.test_util import check_grads

    jax.config.update("jax_enable_x64", True)
    m = Names(jax.numpy, constant=jax.lax.stop_gradient)
    f = jax.custom_vjp(lambda x: case.forward(m, x))
    f.defvjp(lambda x: (case.forward(m, x), x), lambda x, g: (case.rule(m, g, x),))
    try:
        x = jax.numpy.array(case.at)
        check_grads(lambda x: case.after(m, f(x), x), (x,), order=case.order, modes=["rev"])
    except Exception as error:
        return str(error)
    return None


CHECKS = {"minidl": by_minidl, "torch gradcheck": by_torch, "JAX check_grads": by_jax}


def table() -> str:
    """Return the table, and the counts below it."""
    lines = [f"| function | {' | '.join(CHECKS)} |", "| --- |" + " --- |" * len(CHECKS)]
    wrong = dict.fromkeys(CHECKS, 0)
    for is_right, title in ((True, "right"), (False, "wrong")):
        for case in CASES:
            if case.is_right != is_right:
                continue
            cells = []
            for name, check in CHECKS.items():
                with warnings.catch_warnings(), numpy.errstate(all="ignore"):
                    warnings.simplefilter("ignore")
                    found = check(case) is not None
                wrong[name] += found == is_right
                said = "flagged" if found else "passes"
                cells.append(said if found != is_right else f"**{said}**")
            lines.append(f"| {title}: {case.what} | {' | '.join(cells)} |")
    counts = ", ".join(f"{name} {number}" for name, number in wrong.items())
    return "\n".join(lines) + f"\n\nBold is mistaken; of {len(CASES)} cases: {counts}."


def main() -> None:
    """Print the table, or write it into the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true")
    text = table()
    if not parser.parse_args().write:
        print(text)
        return
    page = PAGE.read_text(encoding="utf-8")
    before, rest = page.split(BEGIN)
    PAGE.write_text(f"{before}{BEGIN}\n\n{text}\n\n{END}{rest.split(END)[1]}", encoding="utf-8")


if __name__ == "__main__":
    main()
