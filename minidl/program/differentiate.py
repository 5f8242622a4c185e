"""Gradients through a compiled function: its backward pass is another compiled function.

The results of a replay have no tape. Where those of the plain function would have one, they are given a node
in its place: its rules call a function that computes the results anew and differentiates them, compiled like
the function itself. A step that ends with its own backward() has no tape left, and gets no node.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from minidl.autodiff import grad
from minidl.errors import RecordingError
from minidl.mode import enable_grad, mode
from minidl.primitives.primitive import Kind
from minidl.program.arguments import Arguments, results_of
from minidl.tensor import Tensor

if TYPE_CHECKING:
    from minidl.program.compile import Compiled
    from minidl.program.recording import Recording


def attach(
    compiled: Compiled[Any],
    recording: Recording,
    call: Arguments,
    outputs: list[Tensor],
    arguments: tuple[Any, ...],
    keywords: dict[str, Any],
) -> None:
    """Let gradients flow through those results of a replay that have a tape in the plain function."""
    sources = _sources(call, recording.outside)
    if not sources:
        return
    node = _Call(compiled, recording, sources, arguments, keywords)
    for i, is_wanted in enumerate(recording.differentiable):
        if is_wanted:
            outputs[i]._requires_grad = True
            outputs[i].primitive = _ResultOfCall(node, i)  # type: ignore[assignment]
            outputs[i].inputs = tuple(sources)


def _sources(call: Arguments, outside: list[Tensor]) -> list[Tensor]:
    """Return what gradients are computed for: arguments, and Tensors from outside, each once."""
    possible = (*call.leaves, *call.objects, *outside)
    return list({id(x): x for x in possible if isinstance(x, Tensor) and x.requires_grad}.values())


class _ResultOfCall:
    """Takes the place of a primitive on the tape of one result."""

    name = "compiled function"
    kind = Kind.GENERAL
    differentiable = True

    def __init__(self, call: _Call, index: int):
        self.call, self.index = call, index

    def rule(self, index: int) -> Callable[..., Tensor]:
        """Return the gradient rule of one of the sources."""
        return lambda g, out, *inputs: self.call.gradients(self.index, g)[index]


class _Call:
    """One call of a compiled function, to be differentiated."""

    def __init__(
        self,
        compiled: Compiled[Any],
        recording: Recording,
        sources: list[Tensor],
        arguments: tuple[Any, ...],
        keywords: dict[str, Any],
    ):
        self.compiled, self.recording, self.sources = compiled, recording, sources
        self.arguments, self.keywords = arguments, keywords
        self._latest: tuple[int, Tensor, list[Tensor]] | None = None

    def gradients(self, index: int, g: Tensor) -> list[Tensor]:
        """Return the gradient of each source, given that of one result."""
        if self._latest is None or self._latest[0] != index or self._latest[1] is not g:
            self._refuse_effects()
            backward = self.recording.backward.get(index)
            if backward is None:
                backward = self.recording.backward[index] = self._backward(index)
            self._latest = (index, g, list(backward(g, self.arguments, self.keywords)))
        return self._latest[2]

    def _refuse_effects(self) -> None:
        program = self.recording.program
        effects = {
            "assigns Tensors": program.updates,
            "draws random numbers": program.generators,
            "changes gradients": any(
                rule.output != "as before" for rule in self.recording.gradients if rule.before or rule.output
            ),
            "sets attributes": self.recording.attributes,
        }
        for what, is_done in effects.items():
            if not is_done:
                continue
            raise RecordingError(
                f"a gradient flows into a compiled function that {what}, so it cannot be computed anew: "
                "compile the whole step, backward() included"
            )

    def _backward(self, index: int) -> Any:
        """Return the compiled function that computes the gradients of one result."""
        function, outside = self.compiled.function, self.recording.outside

        def backward(g: Tensor, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> list[Tensor]:
            create_graph = mode.grad_enabled
            with enable_grad():
                y = results_of(function(*arguments, **keywords))[index]
                sources = _sources(Arguments((arguments, keywords)), outside)
                gradients: list[Tensor] = grad(y, sources, g, create_graph=create_graph)
            return gradients

        return self.compiled.like(backward)
