"""Reverse-mode differentiation: the walk over the tape, from an output back to its sources.

The tape is nothing but the Tensors themselves: each remembers the primitive and the inputs it was
made from. Walking back from an output in the reverse order of creation, every Tensor's gradient is
complete when its turn comes; its primitive's rules turn that gradient into contributions to its
inputs. The rules are Tensor code, so with ``create_graph`` the walk leaves a tape of its own, and
gradients can be differentiated again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from minidl import devices
from minidl.mode import mode, no_grad

if TYPE_CHECKING:
    from minidl.tensor import Tensor


def backward(output: Tensor, gradient: Tensor | None = None, retain_graph: bool = False) -> None:
    """Add the gradient of ``output`` to ``.grad`` of every Tensor it was computed from.

    Only leaves get a ``.grad``: Parameters, and Tensors created with ``requires_grad=True``.

    Parameters
    ----------
    output : usually a loss of one element; else ``gradient`` is needed
    gradient : the gradient of some later scalar with respect to ``output``, of its shape
    retain_graph : keep the tape for another backward(); else it is freed as it is walked
    """
    if not output.requires_grad:
        raise RuntimeError(
            "backward() from a Tensor that depends on nothing with requires_grad=True "
            "(or that was computed under no_grad())"
        )
    seed = _seed(output, gradient)
    for leaf, total in _backpropagate(output, seed, _is_leaf, False, retain_graph):
        _add_gradient(leaf, total)


@no_grad()
def _add_gradient(leaf: Tensor, total: Tensor) -> None:
    leaf.grad = total if leaf.grad is None else leaf.grad + total


def grad(
    y: Tensor,
    xs: Tensor | Sequence[Tensor],
    gradient: Tensor | None = None,
    create_graph: bool = False,
    retain_graph: bool | None = None,
) -> Any:
    """Return the gradient of y with respect to one Tensor, or a list for a sequence of them.

    Nothing is added to any ``.grad``. A Tensor that y does not depend on has the gradient zero.

    Parameters
    ----------
    gradient : as for backward()
    create_graph : make the gradients differentiable themselves
    retain_graph : keep the tape of y; by default it is kept if ``create_graph`` is set
    """
    several = isinstance(xs, (list, tuple))
    targets: list[Any] = list(xs) if several else [xs]
    for what, value in [("y", y), *(("xs", x) for x in targets)]:
        if not hasattr(value, "requires_grad"):
            hint = "; value_and_grad() takes a function" if callable(value) else ""
            raise TypeError(f"grad: {what} must be made of Tensors, got {type(value).__name__}{hint}")
    for i, x in enumerate(targets):
        if not x._requires_grad:
            raise RuntimeError(f"grad: Tensor {i} of xs does not require a gradient: {x!r}")
    found: dict[int, Tensor] = {}
    if not y.requires_grad and not mode.grad_enabled:
        raise RuntimeError(
            "grad: y was computed under no_grad(), or the tape is off here: compute it and its gradient in a "
            "`with minidl.enable_grad():` block"
        )
    if y.requires_grad:
        wanted = {id(x) for x in targets}
        keep = create_graph if retain_graph is None else retain_graph
        seed = _seed(y, gradient)
        found = {id(x): g for x, g in _backpropagate(y, seed, lambda x: id(x) in wanted, create_graph, keep)}
    gradients = [found[id(x)] if id(x) in found else x.zeros_like() for x in targets]
    return gradients if several else gradients[0]


def _is_leaf(x: Tensor) -> bool:
    return x.primitive is None


def _seed(output: Tensor, gradient: Tensor | None) -> Tensor:
    if gradient is None:
        if output.size != 1:
            raise RuntimeError(
                f"backward() needs a loss of one element, got shape {output.shape}: "
                "take its mean() or sum(), or pass gradient="
            )
        return output.ones_like()
    if not hasattr(gradient, "requires_grad"):  # a number or an array
        gradient = output.ones_like() * gradient
    if gradient.shape != output.shape:
        raise ValueError(f"the gradient has shape {gradient.shape}, its output {output.shape}")
    return gradient


def _backpropagate(
    output: Tensor, seed: Tensor, is_target: Callable[[Tensor], bool], create_graph: bool, retain_graph: bool
) -> list[tuple[Tensor, Tensor]]:
    """Return each target that output depends on, with its complete gradient."""
    if mode.recorder is not None and mode.recorder.current_phase != "backward":
        with mode.recorder.phase("backward"):
            return _backpropagate(output, seed, is_target, create_graph, retain_graph)
    tape = _topological_order(output, is_target)
    on_tape = {id(x) for x in tape}
    pending = {id(output): seed}
    complete = []
    outer, mode.grad_enabled = mode.grad_enabled, create_graph
    try:
        while tape:
            x = tape.pop()  # drops the list's reference too, so memory is freed during the walk
            g = pending.pop(id(x), None)
            if g is None:
                continue
            if is_target(x):
                complete.append((x, g))
            if x.primitive is None:
                continue
            for source, contribution in _input_gradients(x, g, on_tape):
                earlier = pending.get(id(source))
                pending[id(source)] = contribution if earlier is None else earlier + contribution
            if not retain_graph:
                x.inputs = None
    finally:
        mode.grad_enabled = outer
    return complete


def _topological_order(output: Tensor, is_target: Callable[[Tensor], bool]) -> list[Tensor]:
    """Return, oldest first, the Tensors that lie on a path from a target to the output."""
    seen = {id(output): output}
    waiting = [output]
    while waiting:
        x = waiting.pop()
        if x.primitive is None:
            continue
        if x.inputs is None:
            raise RuntimeError(
                f"backward() has been here before: the tape behind a Tensor made by '{x.primitive.name}' was "
                "freed. Compute the result again, or call the first backward() with retain_graph=True"
            )
        for source in x.inputs:
            if source._requires_grad and id(source) not in seen:
                seen[id(source)] = source
                waiting.append(source)
    leads_to_target: set[int] = set()
    tape = []
    for x in sorted(seen.values(), key=lambda x: x.created_at):
        if is_target(x) or (x.primitive and any(id(source) in leads_to_target for source in x.inputs or ())):
            leads_to_target.add(id(x))
            tape.append(x)
    return tape


def _input_gradients(x: Tensor, g: Tensor, on_tape: set[int]) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield each input of x that a gradient is wanted for, with what x contributes to it."""
    assert x.primitive is not None
    assert x.inputs is not None
    known = tuple(_as_it_was(source, x, id(source) in on_tape) for source in x.inputs)
    out = _as_it_was(x, x, False)
    for index, source in enumerate(x.inputs):
        rule = x.primitive.rule(index) if id(source) in on_tape else None
        if rule is not None:
            yield source, _unbroadcast(rule(g, out, *known, **x.attributes), source)


def _as_it_was(source: Tensor, x: Tensor, on_tape: bool) -> Tensor:
    """Return a Tensor whose values x was computed from; without values if they were overwritten since.

    A rule may still ask for its shape. An input that gradients flow to is refused at once.
    """
    if source.assigned_at <= x.created_at:
        return source
    assert x.primitive is not None
    problem = RuntimeError(
        f"'{x.primitive.name}' used a Tensor of shape {source.shape} that was assigned a new value "
        "afterwards, perhaps through a view, so its gradient cannot be computed: call backward() before "
        "assigning"
    )
    if on_tape:
        raise problem
    from minidl.tensor import Tensor  # which imports this module

    return Tensor(devices.Unavailable(source.data, problem))


def _unbroadcast(gradient: Tensor, source: Tensor) -> Tensor:
    """Undo broadcasting: sum a gradient to the shape, and convert it to the dtype, of its source."""
    if gradient.shape != source.shape:
        extra = gradient.ndim - source.ndim
        stretched = [
            i + extra
            for i, length in enumerate(source.shape)
            if length == 1 and gradient.shape[i + extra] != 1
        ]
        gradient = gradient.sum(axis=(*range(extra), *stretched), keepdims=True).reshape(source.shape)
    return gradient if gradient.dtype == source.dtype else gradient.astype(source.dtype)
