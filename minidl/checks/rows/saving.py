"""Whether what is saved is all that decides what a layer computes."""

from __future__ import annotations

from pathlib import Path

import numpy

from minidl.checks.layer_run import LayerRun, Problem, Skip, reset, tensors_of
from minidl.checks.rows.values import all_equal, changed, copied, plain_state
from minidl.layers.layer import Layer
from minidl.random.generator import default_generator


def saving(run: LayerRun) -> str | None:
    """save and load"""
    import tempfile

    run.reset(run.observations())  # makes the state of stateful layers
    state, twin = run.layer.state_dict(), copied(run.layer)
    if not state:
        raise Skip("nothing to save")
    before = _predictions(run, run.layer)
    with tempfile.TemporaryDirectory() as folder:
        path, other = Path(folder) / "layer.safetensors", Path(folder) / "other.safetensors"
        run.layer.save(path)
        for _, x in run.layer.named_tensors():
            if x.dtype.kind == "f":
                x.assign(x + 1)
        moved = _predictions(run, run.layer)
        run.layer.save(other)
        run.layer.load(path)
        after = _predictions(run, run.layer)
        fresh = moved if twin is None else _predictions(run, twin.load(other))
    for name, values in run.layer.state_dict().items():
        if name in state and not run.stateful and not all_equal([values], [state[name]]):
            raise Problem(f"{name} is not what it was when it was saved")
    run.compared += sum(y.size for y in before)
    if not (all_equal(before, after) and all_equal(moved, fresh)):
        raise Problem(
            "with the same state loaded, the layer gives other outputs: something computed from the "
            "state is kept in an attribute (a stale cache), or part of the state is not in Tensors"
        )
    return f"{len(state)} Tensors"


def training_is_saved(run: LayerRun) -> str | None:
    """what training changes is saved"""
    run.reset(run.observations())
    twin = copied(run.layer)
    if twin is None:
        raise Skip("the layer cannot be copied")
    for stream in range(3):
        inputs = run.observations(stream)
        run.gradients(inputs, training=True)
        for number, p in enumerate(run.layer.parameters()):
            if p.dtype.kind == "f":
                p.assign(p * (0.97 + 0.01 * (number % 3)))  # what an optimizer might do
    twin.load_state_dict(run.layer.state_dict())
    for (_, source), (_, copy) in zip(run.layer.named_generators(), twin.named_generators(), strict=True):
        copy.load_state_dict(source.state_dict())
    for training in (False, True):
        drawn = default_generator.state_dict()
        ours = _outputs(run, run.layer, training) + list(run.layer.state_dict().values())
        default_generator.load_state_dict(drawn)
        loaded = _outputs(run, twin, training) + list(twin.state_dict().values())
        run.compared += sum(y.size for y in ours)
        if not all_equal(ours, loaded):
            names = changed(plain_state(twin), plain_state(run.layer))
            what = (
                f"{', '.join(names)} changes in training and is not saved"
                if names
                else "part of what training changes is not saved"
            )
            mode = "training" if training else "evaluation"
            raise Problem(
                "trained, saved and loaded into an earlier copy, the layer gives other outputs, or "
                f"state, in {mode}: "
                f"{what}: keep state in Tensors (self.mean = dl.zeros(n)) and change it with assign()"
            )
    return None


def _predictions(run: LayerRun, layer: Layer) -> list[numpy.ndarray]:
    return _outputs(run, layer, training=False)


def _outputs(run: LayerRun, layer: Layer, training: bool) -> list[numpy.ndarray]:
    inputs = run.observations()
    layer.train(training)
    if run.stateful:
        reset(layer, inputs, run.axis)
    return [y.numpy() for y in tensors_of(layer(*inputs))]
