"""The random state of the whole process is not a layer's to change."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy

from minidl.checks.layer_run import LayerRun, Problem
from minidl.random.generator import default_generator

_CURE = "give the layer a Generator (self.generator = dl.Generator(seed)) and draw from it with dl.random"


@contextmanager
def random_state_kept() -> Iterator[None]:
    """Put back the random state of the process at the end of a ``with`` block."""
    kept = random.getstate(), numpy.random.get_state(), default_generator.state_dict()
    try:
        yield
    finally:
        random.setstate(kept[0])
        numpy.random.set_state(kept[1])
        default_generator.load_state_dict(kept[2])


def global_state(run: LayerRun) -> str | None:
    """global random numbers are left alone"""
    remark = None
    with random_state_kept():
        random.seed(93)  # no seed that a forward may set, which would then change nothing
        numpy.random.seed(93)
        for training in (False, True):
            mode = "training" if training else "evaluation"
            before = random.getstate(), _of_numpy(), default_generator.state_dict()
            run.outputs(run.observations(), training)
            if random.getstate() != before[0]:
                raise Problem(f"forward draws from, or seeds, Python's random in {mode}: {_CURE}")
            if _of_numpy() != before[1]:
                raise Problem(f"forward draws from, or seeds, numpy.random in {mode}: {_CURE}")
            after = default_generator.state_dict()
            if after != before[2]:
                run.rewind()
                default_generator.numpy.random(
                    3
                )  # a call that begins elsewhere ends elsewhere, unless it seeds
                run.outputs(run.observations(), training)
                if default_generator.state_dict() == after:
                    raise Problem(
                        f"forward calls dl.random.seed() in {mode}, which is the program's to do: {_CURE}"
                    )
                remark = "it draws from the Generator of dl.random, which all share"
    return remark


def _of_numpy() -> Any:
    state: Any = numpy.random.get_state()
    return state[0], state[1].tobytes(), *state[2:]
