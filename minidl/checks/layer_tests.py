"""The tests of check_layer. The first line of each docstring is its title in the report."""

from __future__ import annotations

import copy
import inspect
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy

from minidl import devices
from minidl.checks.gradients import check_gradients
from minidl.checks.layer_run import LayerRun, Problem, Skip, tensors_of
from minidl.layers.layer import Layer
from minidl.layers.network import Network
from minidl.mode import no_grad
from minidl.tensor import Parameter, Tensor, tensor

_SEVERAL = 4


class LayerTests(LayerRun):
    """All tests of check_layer. Each returns a remark or None, or raises Problem or Skip."""

    @property
    def basic(self) -> list[Callable[[], str | None]]:
        """The tests without which the others make no sense."""
        return [self.signatures, self.one_observation, self.several_observations]

    @property
    def further(self) -> list[Callable[[], str | None]]:
        """The other tests, in the order of the report."""
        return [
            self.output_sizes,
            self.output_types,
            self.inputs_left_alone,
            self.independence,
            self.repeatability,
            self.evaluation_state,
            self.training_state,
            self.parameters_found,
            self.gradients_exist,
            self.gradients_agree,
            self.saving,
            self.float32,
            self.float64,
            self.gpu,
            self.nesting,
            self.sharing,
            self.compiling,
        ]

    def signatures(self) -> str | None:
        """methods have valid signatures"""
        if type(self.layer).forward is Layer.forward:
            raise Problem(f"{type(self.layer).__name__} has no forward(self, x)")
        inputs = self.examples.batch(1)
        try:
            inspect.signature(self.layer.forward).bind(*inputs)
        except TypeError as error:
            raise Problem(
                f"forward{inspect.signature(self.layer.forward)} with {len(inputs)} input(s): {error}"
            ) from error
        for name, method in inspect.getmembers(Layer, inspect.isfunction):
            own = getattr(type(self.layer), name, None)
            if name.startswith("_") or name == "forward" or own is method or not inspect.isfunction(own):
                continue
            required = list(inspect.signature(method).parameters)[1:]
            try:
                inspect.signature(getattr(self.layer, name)).bind(*required)
            except TypeError as error:
                raise Problem(
                    f"{name}{inspect.signature(own)} must take ({', '.join(required)}): {error}"
                ) from error
        self.layer.state_dict()
        repr(self.layer)
        return None

    def one_observation(self) -> str | None:
        """one observation"""
        return self._computes(1)

    def several_observations(self) -> str | None:
        """several observations"""
        return self._computes(_SEVERAL)

    def _computes(self, observations: int) -> str | None:
        if observations > 1 and self.axis is None:
            raise Skip("inputs have no observation dimension")
        for training in (False, True):
            inputs = self.examples.batch(observations)
            try:
                self.outputs(inputs, training)
            except Problem:
                raise
            except Exception as error:
                shapes = " and ".join(str(x.shape) for x in inputs)
                mode = "training" if training else "evaluation"
                raise Problem(
                    f"inputs of shape {shapes} in {mode}: {type(error).__name__}: {error}"
                ) from error
        return None

    def output_sizes(self) -> str | None:
        """output sizes"""
        shapes = {}
        for observations in (1, _SEVERAL):
            inputs = self.examples.batch(observations)
            predicted = [y.shape for y in self.outputs(inputs)]
            trained = [y.shape for y in self.outputs(inputs, training=True)]
            if predicted != trained:
                raise Problem(f"{_listed(predicted)} in evaluation, {_listed(trained)} in training")
            shapes[observations] = predicted
            if self.axis is None:
                return None
            for i, shape in enumerate(predicted):
                if len(shape) <= self.axis or shape[self.axis] != observations:
                    raise Problem(
                        f"{observations} observation(s) give output {i} of shape {shape}: axis {self.axis} "
                        f"must have length {observations}"
                    )
        one, several = ([_without(s, self.axis) for s in shapes[n]] for n in (1, _SEVERAL))
        if one != several:
            raise Problem(f"each observation gives {_listed(one)} alone, {_listed(several)} in a batch")
        return None

    def output_types(self) -> str | None:
        """output types"""
        self._check_types(self.examples.batch(_SEVERAL))
        return None

    def _check_types(self, inputs: Sequence[Tensor]) -> None:
        dtypes = {x.dtype for x in (*inputs, *self.layer.parameters()) if x.dtype.kind == "f"}
        device = inputs[0].device
        for training in (False, True):
            for i, y in enumerate(self.outputs(inputs, training)):
                if y.device != device:
                    raise Problem(f"output {i} is on {y.device}, the inputs on {device}: forward moves data")
                if y.dtype.kind == "f" and dtypes and y.dtype not in dtypes:
                    given = " and ".join(map(str, dtypes))
                    raise Problem(
                        f"output {i} is {y.dtype} where inputs and Parameters are {given}: forward brings in "
                        "a NumPy array or Tensor of another dtype, or converts to a fixed one; take x.dtype"
                    )

    def inputs_left_alone(self) -> str | None:
        """inputs are left alone"""
        for training in (False, True):
            inputs = self.examples.batch(_SEVERAL)
            before = [x.numpy() for x in inputs]
            self.outputs(inputs, training)
            for i, (x, values) in enumerate(zip(inputs, before, strict=True)):
                if not numpy.array_equal(x.numpy(), values, equal_nan=x.dtype.kind == "f"):
                    raise Problem(
                        f"forward overwrites its input {i}: compute a new array (x * 2, not x.data *= 2)"
                    )
        return None

    def independence(self) -> str | None:
        """observations are independent in evaluation"""
        axis = self._needs_observations()
        self.layer.astype("float64")
        inputs = self.examples.batch(_SEVERAL, dtype="float64")
        together = [y.numpy() for y in self.outputs(inputs)]
        for place in range(_SEVERAL):
            part = [tensor(numpy.take(x.numpy(), [place], axis), device=x.device) for x in inputs]
            for i, (y, alone) in enumerate(zip(together, self.outputs(part), strict=True)):
                here = numpy.take(y, [place], axis)
                if here.shape != alone.shape:
                    raise Skip("output sizes do not follow the observations")
                if not _near(here, alone.numpy(), 1e-8):
                    difference = _difference(here, alone.numpy())
                    raise Problem(
                        f"output {i} of observation {place} differs by {difference:.2g} from what it is "
                        f"without the other {_SEVERAL - 1}: something is computed over the batch (a mean, a "
                        f"softmax along axis {axis}), or a place in the batch is fixed"
                    )
        return None

    def _needs_observations(self) -> int:
        if self.axis is None:
            raise Skip("inputs have no observation dimension")
        return self.axis

    def repeatability(self) -> str | None:
        """evaluation is repeatable"""
        twin = _copy(self.layer)
        before, elsewhere, after = (
            [y.numpy() for y in self.outputs(self.examples.batch(_SEVERAL, stream))] for stream in (0, 1, 0)
        )
        if not _all_equal(before, after):
            raise Problem(
                "the same input gives another output the second time: forward draws random numbers, or keeps "
                "something, in evaluation mode (does it ask self.training?)"
            )
        if twin is not None:
            fresh = [y.numpy() for y in tensors_of(twin.eval()(*self.examples.batch(_SEVERAL, 1)))]
            if not _all_equal(elsewhere, fresh):
                raise Problem(
                    "an input gives another output if a different one came before it: forward keeps a result"
                )
        return None

    def evaluation_state(self) -> str | None:
        """evaluation changes no state"""
        before, names, draws = _plain_arrays(self.layer), _state(self.layer), _draws(self.layer)
        with no_grad():
            for stream in range(2):
                self.outputs(self.examples.batch(_SEVERAL, stream))
        self._state_is_the_same(names)
        changed = [*self.snapshot.changed(), *_changed(before, _plain_arrays(self.layer))]
        if changed:
            raise Problem(
                f"{', '.join(changed)} changed in evaluation mode: update state only if self.training"
            )
        if draws != _draws(self.layer):
            raise Problem("random numbers are drawn in evaluation mode: draw only if self.training")
        return None

    def training_state(self) -> str | None:
        """training changes state only"""
        before, names = _plain_arrays(self.layer), _state(self.layer)
        for stream in range(2):
            self.outputs(self.examples.batch(_SEVERAL, stream), training=True)
        self._state_is_the_same(names)
        parameters = {name for name, _ in self.layer.named_parameters()}
        changed = [name for name in self.snapshot.changed() if name in parameters]
        if changed:
            raise Problem(
                f"forward changes the Parameter(s) {', '.join(changed)}: that is the optimizer's to do"
            )
        arrays = _changed(before, _plain_arrays(self.layer))
        if arrays:
            raise Problem(
                f"{', '.join(arrays)}: a NumPy array that changes in training is neither saved nor moved: "
                "keep state in Tensors (self.mean = dl.zeros(n)) and change it with assign()"
            )
        return None

    def _state_is_the_same(self, before: dict[str, Tensor]) -> None:
        after = _state(self.layer)
        added = [name for name in after if name not in before]
        if added:
            raise Problem(
                f"forward keeps a Tensor as attribute {', '.join(added)}: it would be saved as state; keep a "
                "local variable, or make it state in __init__"
            )
        replaced = [name for name, x in before.items() if after.get(name) is not x]
        if replaced:
            raise Problem(
                f"forward replaces {', '.join(replaced)} by another Tensor: change state with assign()"
            )

    def parameters_found(self) -> str | None:
        """every Parameter is found"""
        outputs = self.outputs(self.examples.batch(_SEVERAL), training=True)
        known = {id(p) for p in self.layer.parameters()}
        hidden = [p for p in _leaves_behind(outputs) if isinstance(p, Parameter) and id(p) not in known]
        if hidden:
            shapes = _listed([p.shape for p in hidden])
            raise Problem(
                f"forward uses {len(hidden)} Parameter(s) that parameters() does not list, of shape "
                f"{shapes}: keep them as attributes, or in lists, tuples or dicts of them"
            )
        return f"{len(known)} found" if known else "there are none"

    def gradients_exist(self) -> str | None:
        """gradients exist"""
        inputs = self.examples.batch(_SEVERAL)
        parameters = [name for name, _ in self.layer.named_parameters()]
        if not parameters and not any(x.dtype.kind == "f" for x in inputs):
            raise Skip("no Parameters and no floating-point inputs")
        found = self.gradients(inputs)
        missing = [name for name in parameters if name not in found]
        if missing:
            raise Problem(
                f"no gradient reaches {', '.join(missing)}: forward does not use it, or cuts it off "
                "(detach(), .data, .numpy(), no_grad())"
            )
        return None

    def gradients_agree(self) -> str | None:
        """gradients agree with differences"""
        inputs = self.examples.batch(min(3, _SEVERAL))
        if not any(x.dtype.kind == "f" for x in (*inputs, *self.layer.parameters())):
            raise Skip("no Parameters and no floating-point inputs")
        predicted, trained = ([y.numpy() for y in self._from_the_start(inputs, t)] for t in (False, True))
        notes = []
        for training in [True] if _all_equal(predicted, trained) else [True, False]:
            self.layer.train(training)
            report = check_gradients(self.layer, *inputs, **self.options)
            if not report.checked and report.kinks:
                raise Skip(report.notes()[0])
            notes += report.notes()
        return "; ".join(dict.fromkeys(notes))

    def _from_the_start(self, inputs: Sequence[Tensor], training: bool) -> list[Tensor]:
        """Return the outputs, and reset the layer."""
        outputs = self.outputs(inputs, training)
        self.snapshot.rewind(self.snapshot.tensors)
        self.snapshot.restore_attributes()
        return outputs

    def saving(self) -> str | None:
        """save and load"""
        import tempfile

        state, twin = self.layer.state_dict(), _copy(self.layer)
        if not state:
            raise Skip("nothing to save")
        before = self._predictions(self.layer)
        with tempfile.TemporaryDirectory() as folder:
            path, other = Path(folder) / "layer.safetensors", Path(folder) / "other.safetensors"
            self.layer.save(path)
            for _, x in self.layer.named_tensors():
                if x.dtype.kind == "f":
                    x.assign(x + 1)
            moved = self._predictions(self.layer)
            self.layer.save(other)
            self.layer.load(path)
            after = self._predictions(self.layer)
            fresh = moved if twin is None else self._predictions(twin.load(other))
        for name, values in self.layer.state_dict().items():
            if not _all_equal([values], [state[name]]):
                raise Problem(f"{name} is not what it was when it was saved")
        if not (_all_equal(before, after) and _all_equal(moved, fresh)):
            raise Problem(
                "with the same state loaded, the layer gives other outputs: something computed from the "
                "state is kept in an attribute (a stale cache), or part of the state is not in Tensors"
            )
        return f"{len(state)} Tensors"

    def _predictions(self, layer: Layer) -> list[numpy.ndarray]:
        return [y.numpy() for y in tensors_of(layer.eval()(*self.examples.batch(_SEVERAL)))]

    def float32(self) -> str | None:
        """float32"""
        return self._in_dtype("float32")

    def float64(self) -> str | None:
        """float64"""
        return self._in_dtype("float64")

    def _in_dtype(self, dtype: str) -> str | None:
        inputs = self.examples.batch(_SEVERAL, dtype=dtype)
        self.layer.astype(dtype)
        self._check_types(inputs)
        self.gradients(inputs)
        return None

    def gpu(self) -> str | None:
        """GPU"""
        problem = devices.gpu_problem()
        if problem is not None:
            raise Skip(f"no GPU: {problem.partition(';')[0]}")
        expected = [y.numpy() for y in self.outputs(self.examples.batch(_SEVERAL))]
        self.layer.to("gpu")
        inputs = [x.to("gpu") for x in self.examples.batch(_SEVERAL)]
        outputs = self.outputs(inputs)  # first, because the check of types trains, which changes the state
        self._check_types(inputs)
        for i, (y, value) in enumerate(zip(outputs, expected, strict=True)):
            if not _near(y.numpy(), value, 1e-3):
                raise Problem(f"output {i} differs from the CPU's by {_difference(y.numpy(), value):.2g}")
        self.gradients(inputs)
        self.layer.train()
        if any(x.dtype.kind == "f" for x in (*inputs, *self.layer.parameters())):
            check_gradients(self.layer, *inputs, **(self.options | {"sample": self.options["sample"] or 8}))
        return None

    def nesting(self) -> str | None:
        """nested in networks"""
        inputs = self.examples.batch(_SEVERAL)
        expected = [y.numpy() for y in self.outputs(inputs)]
        self.layer.train()
        outer = Network([Network([self.layer])])
        names = [name for name, _ in outer.named_tensors()]
        if names != [f"0.0.{name}" for name, _ in self.layer.named_tensors()]:
            raise Problem(f"inside a network its state is named {', '.join(names)}")
        outer.eval()
        self.snapshot.rewind(self.snapshot.tensors)
        if not _all_equal([y.numpy() for y in tensors_of(outer(*self.examples.batch(_SEVERAL)))], expected):
            raise Problem(
                "inside a network in evaluation mode it gives other outputs than by itself: it keeps its "
                "mode elsewhere than in self.training"
            )
        return None

    def sharing(self) -> str | None:
        """used twice"""
        first, second = self.examples.batch(_SEVERAL), self.examples.batch(_SEVERAL, stream=1)
        if not self.layer.parameters():
            raise Skip("no Parameters to share")
        one, two = self.gradients(first, training=False), self.gradients(second, training=False)
        y, z = self.outputs(first), self.outputs(second)
        (self.loss(y) + self.loss(z)).backward()
        for name, p in self.layer.named_parameters():
            parts = [g[name].numpy() for g in (one, two) if name in g]
            if not parts or p.grad is None:
                continue
            if not _near(p.grad.numpy(), sum(parts), 1e-3):
                raise Problem(
                    f"used on two inputs, the gradient of {name} is not the sum of both uses' gradients: "
                    "forward keeps what backward needs in an attribute, and the second use overwrites it"
                )
        return None

    def compiling(self) -> str | None:
        """compiled replay equals eager"""
        from minidl.errors import RecordingError
        from minidl.program.compile import compile

        layer = self.layer

        @compile
        def predict(*inputs: Tensor) -> Any:
            return layer(*inputs)

        @compile
        def step(*inputs: Tensor) -> Any:
            loss = self.loss(tensors_of(layer(*inputs)))
            if loss.requires_grad:
                loss.backward()
            return loss

        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            try:
                for function, training in ((predict, False), (step, True)):
                    layer.train(training)
                    for stream in (0, 1, 0):
                        self._replays(function, self.examples.batch(_SEVERAL, stream), training)
            except RecordingError as error:
                raise Skip(f"cannot be compiled: {error}") from None
        for warning in caught:
            if "runs without being compiled" in str(warning.message):
                raise Skip(f"cannot be compiled: {warning.message}")
        return None

    def _replays(self, function: Any, inputs: list[Tensor], training: bool) -> None:
        results = []
        for run in (function.function, function):
            self.snapshot.rewind(self.snapshot.tensors)
            values = {f"output {i}": y.numpy() for i, y in enumerate(tensors_of(run(*inputs)))}
            for name, x in self.layer.named_tensors():
                values[name] = x.numpy()
                if training and x.grad is not None:
                    values[f"the gradient of {name}"] = x.grad.numpy()
            results.append(values)
        eager, replayed = results
        for name, value in eager.items():
            if name not in replayed or not _near(replayed[name], value, 1e-3):
                raise Problem(
                    f"{name} is not what it is without compile(): forward does something besides Tensor "
                    "operations (NumPy, Python counters), which a replay does not repeat, or the forward of "
                    "a primitive does not write to out="
                )


def _copy(layer: Layer) -> Layer | None:
    try:
        return copy.deepcopy(layer)
    except Exception:  # some attributes (locks, files) cannot be copied
        return None


def _listed(shapes: Sequence[Any]) -> str:
    return " and ".join(map(str, shapes))


def _without(shape: tuple[int, ...], axis: int | None) -> tuple[int, ...]:
    return shape if axis is None else shape[:axis] + shape[axis + 1 :]


def _near(a: numpy.ndarray, b: Any, tolerance: float) -> bool:
    """Compare relative to the size of the values."""
    if a.shape != numpy.shape(b):
        return False
    scale = float(numpy.abs(b).max(initial=0.0, where=numpy.isfinite(b)))
    return bool(
        numpy.allclose(a, b, rtol=tolerance, atol=tolerance * scale + 1e-12, equal_nan=a.dtype.kind == "f")
    )


def _difference(a: numpy.ndarray, b: numpy.ndarray) -> float:
    return float(numpy.abs(a - b).max()) if a.shape == b.shape else float("inf")


def _all_equal(first: Sequence[numpy.ndarray], second: Sequence[numpy.ndarray]) -> bool:
    return len(first) == len(second) and all(
        numpy.array_equal(a, b, equal_nan=a.dtype.kind == "f") for a, b in zip(first, second, strict=True)
    )


def _state(layer: Layer) -> dict[str, Tensor]:
    return dict(layer.named_tensors())


def _draws(layer: Layer) -> list[Any]:
    return [generator.numpy.bit_generator.state for _, generator in layer.named_generators()]


def _plain_arrays(layer: Layer) -> dict[str, numpy.ndarray]:
    """Return copies of the NumPy arrays among the attributes of a layer and of those inside."""
    return {
        f"{prefix}.{name}".lstrip("."): value.copy()
        for prefix, part in [("", layer), *layer.named_layers()]
        for name, value in vars(part).items()
        if isinstance(value, numpy.ndarray)
    }


def _changed(before: dict[str, numpy.ndarray], after: dict[str, numpy.ndarray]) -> list[str]:
    return [name for name in before if name not in after or not _all_equal([before[name]], [after[name]])]


def _leaves_behind(outputs: Sequence[Tensor]) -> list[Tensor]:
    """Return the leaves from which results were computed."""
    seen: dict[int, Tensor] = {}
    waiting = list(outputs)
    while waiting:
        x = waiting.pop()
        if id(x) not in seen and x.requires_grad:
            seen[id(x)] = x
            waiting.extend(x.inputs or ())
    return [x for x in seen.values() if x.primitive is None]
