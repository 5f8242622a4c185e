"""What calls may change: nothing in evaluation, state in training, and that in Tensors that stay finite."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy

from minidl.checks.layer_run import LayerRun, Problem, Skip
from minidl.checks.rows.values import all_equal, changed, copied, plain_state
from minidl.layers.layer import Layer
from minidl.mode import no_grad
from minidl.tensor import Tensor


def repeatability(run: LayerRun) -> None:
    """evaluation is repeatable"""
    twin = copied(run.layer)
    draws = _draws(run.layer)
    before, elsewhere, after = (run.arrays(run.observations(stream)) for stream in (0, 1, 0))
    run.compared += sum(y.size for y in before)
    if not all_equal(before, after):
        raise Problem(
            "the same input gives another output the second time: forward draws random numbers, or keeps "
            "something, in evaluation mode (does it ask self.training?)"
        )
    if draws != _draws(run.layer):
        raise Problem("random numbers are drawn in evaluation mode: draw only if self.training")
    if twin is not None:
        other = LayerRun(twin, run.examples, run.options)
        if not all_equal(elsewhere, other.arrays(run.observations(1))):
            raise Problem(
                "an input gives another output if a different one came before it: forward keeps a result"
            )


def evaluation_state(run: LayerRun) -> None:
    """evaluation changes no state"""
    if run.stateful:
        raise Skip("the layer is stateful: it carries state from call to call, until reset_state()")
    before, names = _arrays(run.layer), _state(run.layer)
    with no_grad():
        for stream in range(2):
            run.outputs(run.observations(stream))
    if any(part.training for part in run.parts()):
        raise Problem("forward switches to training: self.training is set by train() and eval() alone")
    _require_same_tensors(run.layer, names)
    different = [*run.snapshot.changed(), *(changed(before, _arrays(run.layer, before)) if before else [])]
    if different:
        raise Problem(
            f"{', '.join(different)} changed in evaluation mode: update state only if self.training"
        )


def training_state(run: LayerRun) -> None:
    """training changes state only"""
    before, names = _arrays(run.layer), _state(run.layer)
    for stream in range(2):
        run.outputs(run.observations(stream), training=True)
    if not run.stateful:
        _require_same_tensors(run.layer, names)
    parameters = {name for name, _ in run.layer.named_parameters()}
    assigned = [name for name in run.snapshot.changed() if name in parameters]
    if assigned:
        raise Problem(
            f"forward changes the Parameter(s) {', '.join(assigned)}: that is the optimizer's to do"
        )
    arrays = changed(before, _arrays(run.layer, before)) if before else []
    if arrays:
        raise Problem(
            f"{', '.join(arrays)}: a NumPy array that changes in training is neither saved nor moved: "
            "keep state in Tensors (self.mean = dl.zeros(n)) and change it with assign()"
        )


def _arrays(layer: Layer, names: Iterable[str] | None = None) -> dict[str, Any]:
    """Return copies of the NumPy arrays among the attributes; what is made later is a cache, see "
    "saving.py."""
    state = plain_state(layer)
    return {name: state.get(name) for name in names or state if isinstance(state.get(name), numpy.ndarray)}


def _state(layer: Layer) -> dict[str, Tensor]:
    return dict(layer.named_tensors())


def _draws(layer: Layer) -> list[Any]:
    return [generator.numpy.bit_generator.state for _, generator in layer.named_generators()]


def _require_same_tensors(layer: Layer, before: dict[str, Tensor]) -> None:
    after = _state(layer)
    added = [name for name in after if name not in before]
    if added:
        raise Problem(
            f"forward keeps a Tensor as attribute {', '.join(added)}: it would be saved as state; keep a "
            "local variable, or make it state in __init__"
        )
    replaced = [name for name, x in before.items() if after.get(name) is not x]
    if replaced:
        raise Problem(f"forward replaces {', '.join(replaced)} by another Tensor: change state with assign()")


def finite_state(run: LayerRun) -> str | None:
    """state stays finite"""
    state = {name: x for name, x in run.layer.named_tensors() if x.dtype.kind == "f" and not x.requires_grad}
    if not state:
        raise Skip("no state")
    fine = {name for name, x in state.items() if numpy.isfinite(x.numpy()).all()}
    for observations, what in ((4, "several observations"), (1, "one observation"), (4, "several more")):
        with no_grad():
            run.outputs(run.examples.batch(observations, observations), training=True)
        for name, x in run.layer.named_tensors():
            if name in fine and not numpy.isfinite(x.numpy()).all():
                raise Problem(
                    f"{name} is {x.numpy().ravel()[~numpy.isfinite(x.numpy()).ravel()][0]} after a "
                    "training call "
                    f"with {what}, and stays so: a variance of one observation with ddof=1, or a "
                    "division by 0"
                )
        if run.axis is None:
            break
    run.compared += sum(x.size for x in state.values())
    return f"{', '.join(state)}"


_CALLS = 6  # of each mode, in which nothing may grow every time
_MANY = 70  # calls after which what still grows is taken to grow for ever


def growth(run: LayerRun) -> None:
    """nothing grows from call to call"""
    first = _sizes(run.layer)
    growing = set(first)
    calls = 0
    for calls in range(1, _MANY + 1):
        run.outputs(run.observations(calls), training=calls % 4 < 2)
        if calls % _CALLS == 0:
            sizes = _sizes(run.layer)
            growing = {name for name in sizes if sizes[name] > first.get(name, 0)}
            first = sizes
            if not growing:
                return
    sizes = _sizes(run.layer)
    names = sorted(growing)
    raise Problem(
        f"{', '.join(names)} grows with every call ({names[0]}: {sizes[names[0]]} after {calls}): keep "
        "what is "
        "needed in a Tensor of fixed size, detach() what is kept from an earlier call, or return it"
    )


def _sizes(layer: Layer) -> dict[str, int]:
    """Return how much each attribute holds: parts of containers, elements of arrays, and tapes "
    "behind Tensors."""
    sizes: dict[str, int] = {}
    for prefix, part in [("", layer), *layer.named_layers()]:
        for name, value in vars(part).items():
            sizes[f"{prefix}.{name}".lstrip(".")] = _size(value)
        for kind in type(part).__mro__:
            if kind.__module__.startswith("minidl."):
                break
            for name, value in vars(kind).items():
                if isinstance(value, (list, dict, set)) and not name.startswith("__"):
                    sizes[f"{kind.__name__}.{name}"] = _size(value)
    return sizes


def _size(value: Any, depth: int = 0) -> int:
    if isinstance(value, Tensor):
        return value.size + (_tape_length(value) if value.requires_grad else 0)
    if isinstance(value, numpy.ndarray):
        return value.size
    if isinstance(value, (str, bytes)):
        return len(value)
    if getattr(value, "maxlen", None) is not None or depth > 4:
        return 0
    if isinstance(value, dict):
        return len(value) + sum(_size(part, depth + 1) for part in value.values())
    if isinstance(value, (list, tuple, set, frozenset)) or type(value).__name__ == "deque":
        return len(value) + sum(_size(part, depth + 1) for part in value)
    if hasattr(value, "__dict__") and not isinstance(value, (Layer, type)) and not callable(value):
        return sum(_size(part, depth + 1) for part in vars(value).values())
    return 0


def _tape_length(x: Tensor) -> int:
    seen: set[int] = set()
    waiting = [x]
    while waiting:
        y = waiting.pop()
        if id(y) not in seen:
            seen.add(id(y))
            waiting.extend(y.inputs or ())
    return len(seen)
