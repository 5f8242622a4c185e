"""Whether a layer has a forward, and methods that can be called as those of every Layer."""

from __future__ import annotations

import inspect

from minidl.checks.layer_run import LayerRun, Problem
from minidl.layers.layer import Layer


def signatures(run: LayerRun) -> None:
    """methods have valid signatures"""
    layer = run.layer
    if type(layer).forward is Layer.forward:
        raise Problem(f"{type(layer).__name__} has no forward(self, x)")
    inputs = run.examples.batch(1)
    try:
        inspect.signature(layer.forward).bind(*inputs)
    except TypeError as error:
        raise Problem(
            f"forward{inspect.signature(layer.forward)} with {len(inputs)} input(s): {error}"
        ) from error
    for name, method in inspect.getmembers(Layer, inspect.isfunction):
        own = getattr(type(layer), name, None)
        if name.startswith("_") or name == "forward" or own is method or not inspect.isfunction(own):
            continue
        required = list(inspect.signature(method).parameters)[1:]
        try:
            inspect.signature(getattr(layer, name)).bind(*required)
        except TypeError as error:
            raise Problem(
                f"{name}{inspect.signature(own)} must take ({', '.join(required)}): {error}"
            ) from error
    layer.state_dict()
    repr(layer)


def hidden_method(layer: Layer) -> str | None:
    """Return what is wrong if an attribute has the name of a method of Layer, which it hides."""
    waiting, seen = [layer], set()
    while waiting:
        part = waiting.pop()
        seen.add(id(part))
        for name, value in vars(part).items():
            own = getattr(Layer, name, None)
            if inspect.isfunction(own) and not callable(value):
                return (
                    f"self.{name} = ... in {type(part).__name__} hides the method {name}() of every Layer: "
                    "give the attribute another name"
                )
            if isinstance(value, Layer) and id(value) not in seen:
                waiting.append(value)
    return None
