"""Whether a layer works inside networks, and used twice."""

from __future__ import annotations

from minidl.checks.layer_run import LayerRun, Problem, Skip, tensors_of
from minidl.checks.rows.values import all_equal, near
from minidl.layers.network import Network


def nesting(run: LayerRun) -> None:
    """nested in networks"""
    inputs = run.observations()
    expected = run.arrays(inputs)
    run.layer.train()
    outer = Network([Network([run.layer])])
    names = [name for name, _ in outer.named_tensors()]
    if names != [f"0.0.{name}" for name, _ in run.layer.named_tensors()]:
        raise Problem(f"inside a network its state is named {', '.join(names)}")
    outer.eval()
    run.snapshot.rewind(run.snapshot.tensors)
    run.reset(inputs)
    found = [y.numpy() for y in tensors_of(outer(*run.observations()))]
    run.compared += sum(y.size for y in found)
    if not all_equal(found, expected):
        raise Problem(
            "inside a network in evaluation mode it gives other outputs than by itself: it keeps its "
            "mode elsewhere than in self.training"
        )


def sharing(run: LayerRun) -> None:
    """used twice"""
    first, second = run.observations(), run.observations(1)
    if not run.layer.parameters():
        raise Skip("no Parameters to share")
    one, two = run.gradients(first, training=False), run.gradients(second, training=False)
    y, z = run.outputs(first), run.outputs(second)
    total = run.loss(y) + run.loss(z)
    if not total.requires_grad:
        raise Skip("no Parameter has a gradient")
    total.backward()
    for name, p in run.layer.named_parameters():
        parts = [g[name].numpy() for g in (one, two) if name in g]
        if not parts or p.grad is None:
            continue
        run.compared += p.size
        if not near(p.grad.numpy(), sum(parts), 1e-3):
            raise Problem(
                f"used on two inputs, the gradient of {name} is not the sum of both uses' gradients: "
                "forward keeps what backward needs in an attribute, and the second use overwrites it"
            )
