"""compile(): what the user calls. Records a function on its first call, replays it on the next."""

from __future__ import annotations

import functools
import threading
import types
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy

from minidl import devices
from minidl.errors import DeviceError, RecordingError
from minidl.mode import mode
from minidl.program.cpu.threads import renew_after_fork
from minidl.program.lowered.rounding import PRECISIONS
from minidl.tensor import Tensor, mark_assigned

if TYPE_CHECKING:
    from minidl.program.program import Program, Value


def compile(
    function: Callable[..., Any] | None = None,
    *,
    verify: bool = False,
    threads: int | None = None,
    kernels: str = "numpy",
    precision: str = "float32",
    poison: bool = False,
) -> Any:
    """Turn a function of Tensors into one that records itself once and is then replayed.

    The first call runs the function as it is, and records every operation: forward, backward,
    optimizer update. This call and later ones with arguments of the same shapes, dtypes and devices
    replay the record: no tape, no allocation, elementwise work in cache-sized blocks on all cores, or, on a
    GPU, generated kernels in a CUDA graph. Other
    arguments, another training mode, or changed settings of layers and optimizers record another
    program by themselves. Use it as ``@compile`` or ``step = compile(step)``.

    What a replay repeats is the Tensor operations, reading Parameters and other outside Tensors as
    they are then, and updating them. Python code around the operations runs while recording only:
    prints, counters and the like happen once. Gradients do not flow through a compiled function;
    compile the whole step.

    Parameters
    ----------
    function : takes Tensors, arrays, numbers and nested lists, tuples and dicts of them; returns
        Tensors in such a nest, or None
    verify : at every replay, also compute the recorded operations one by one, without any of the
        compiler's improvements, and compare
    threads : how many threads compute; by default one for each core this process may use
    kernels : how elementwise work is done on the CPU: ``"numpy"``, or ``"c"`` for C functions generated
        from the recorded operations, which needs a C compiler on the PATH
    precision : of matrix products of float32. ``"tf32"`` and ``"bfloat16"`` round their factors to 10 and
        to 7 bits (after the leading one) for the speed of a GPU's tensor cores; products are summed, and
        everything else is computed and stored, in float32, so the loss needs no scaling. The CPU rounds
        alike, which takes longer, to show what it costs in accuracy. bfloat16 needs a GPU of compute
        capability 8.0 or higher (2020 and later).
    poison : fill every buffer with NaN before each replay, to find a step that reads what it
        should not

    Raises
    ------
    RecordingError
        While recording, the function reads a value into Python (a branch, ``item()``), or does
        something else that a replay could not repeat; the message names the line.
    """
    if function is None:
        return functools.partial(
            compile, verify=verify, threads=threads, kernels=kernels, precision=precision, poison=poison
        )
    return functools.wraps(function)(Compiled(function, verify, threads, kernels, precision, poison))


@dataclass
class _Recording:
    """One program of a compiled function, ready to be replayed."""

    program: Program
    original: Program
    executor: Any
    rebuild: Callable[[list[Any]], Any]
    guards: list[tuple[Any, str, Any]]
    states: list[Value]
    updated: list[Tensor]
    gradients: list[tuple[Tensor, Value]]

    def is_valid(self) -> bool:
        """Say whether everything the recording took for granted is still so."""
        return all(state.tensor.data is state.array for state in self.states) and all(
            getattr(owner, name, None) is value for owner, name, value in self.guards
        )

    def evaluate(self, inputs: list[Any]) -> tuple[list[Any], dict[Value, Any]]:
        """Compute the recorded operations one by one, and disturb nothing.

        What is drawn for it will be drawn again; the results are copies, as they may be memory of states.
        """
        before = [(generator, generator.state_dict()) for generator in self.original.generators]
        try:
            outputs, updates = self.original.evaluate(inputs)
        finally:
            for generator, state in before:
                generator.load_state_dict(state)
        return [devices.copy(array) for array in outputs], {
            state: devices.copy(array) for state, array in updates.items()
        }


class Compiled:
    """A compiled function; `programs` lists what has been recorded so far."""

    def __init__(
        self,
        function: Callable[..., Any],
        verify: bool,
        threads: int | None,
        kernels: str,
        precision: str,
        poison: bool,
    ):
        if precision not in PRECISIONS:
            raise ValueError(f"unknown precision {precision!r}: use one of {', '.join(PRECISIONS)}")
        self.function = function
        self.verify, self.poison = verify, poison
        self.threads, self.kernels, self.precision = threads, kernels, precision
        self._recordings: dict[Any, _Recording] = {}
        self._lock = threading.RLock()  # a program has one set of buffers, so one thread at a time
        renew_after_fork(self)

    def after_fork(self) -> None:
        """In a forked child, where no other thread is inside a call, begin with a free lock."""
        self._lock = threading.RLock()

    def __get__(self, instance: Any, owner: type) -> Any:
        return self if instance is None else types.MethodType(self, instance)

    @property
    def programs(self) -> list[Program]:
        """The recorded programs, one for each kind of arguments; print one to read it."""
        return [recording.program for recording in self._recordings.values()]

    def __call__(self, *arguments: Any, **keywords: Any) -> Any:
        """Replay the function, or record it if these arguments are new to it."""
        if mode.recorder is not None:  # inside another compiled function: become part of it
            return self.function(*arguments, **keywords)
        leaves: list[Any] = []
        structure = _flatten((arguments, keywords), leaves)
        key = (structure, mode.grad_enabled)
        with self._lock:
            recording = self._recordings.get(key)
            if recording is None or not recording.is_valid():
                return self._record(key, arguments, keywords, leaves)
            return self._replay(recording, leaves)

    def _record(
        self, key: Any, arguments: tuple[Any, ...], keywords: dict[str, Any], leaves: list[Any]
    ) -> Any:
        # Imported here, so that programs that compile nothing do not wait for it.
        from minidl.program.passes.precision import round_factors
        from minidl.program.recorder import Recorder

        inputs = [Tensor(devices.copy(_array(leaf)), _requires_grad(leaf)) for leaf in leaves]
        recorder = Recorder(inputs)
        input_of = {id(leaf): x for leaf, x in zip(leaves, inputs, strict=True)}
        arguments, keywords = _rebuild((arguments, keywords), lambda leaf: input_of[id(leaf)])
        mode.recorder = recorder
        try:
            result = self.function(*arguments, **keywords)
        finally:
            mode.recorder = None
        outputs: list[Any] = []
        _flatten(result, outputs, results=True)
        gradients = recorder.gradients()
        recorded = recorder.finish([*outputs, *(x.grad for x in gradients)])  # type: ignore[list-item]
        original = round_factors(recorded, self.precision)
        executor = self._executor(recorded, original)
        program = executor.program
        program.executor = executor
        recording = self._recordings[key] = _Recording(
            program,
            original,
            executor,
            lambda leaves: _rebuild(result, lambda leaf: leaves.pop(0), results=True),
            recorder.guards,
            program.states,
            [state.tensor for state in program.updates if state.tensor is not None],
            list(zip(gradients, program.outputs[len(outputs) :], strict=True)),
        )
        for x in gradients:
            x.grad = None
        recorder.rewind()
        recorder.release()
        # The first result comes from the program too, so that it does not matter, to the last bit, when
        # a function was recorded: a training that is resumed ends where one without a break does.
        return self._replay(recording, leaves)

    def _executor(self, recorded: Program, program: Program) -> Any:
        """Return what runs an improved form of a program where its arrays are.

        ``program`` is the recorded one with the factors of its products rounded.
        """
        from minidl.program.passes.pipeline import optimize

        places = {devices.device_of(value.array) for value in program.values() if value.array is not None}
        if places <= {"cpu"}:
            from minidl.program.cpu.executor import NumpyExecutor

            return NumpyExecutor(optimize(program), self.threads, self.kernels)
        if len(places) == 1:
            from minidl.program.gpu.executor import CupyExecutor

            (place,), tf32 = places, self.precision == "tf32"
            if tf32:
                program = recorded  # the tensor cores round by themselves
            if self.precision == "bfloat16":
                _check_tensor_cores(place)
            try:
                with devices.gpu(place):  # passes may compute with constants
                    return CupyExecutor(optimize(program, on_gpu=True), tf32)
            except Exception as error:  # CUDA's compiler, the driver and cuBLAS each have their own
                warnings.warn(
                    "no kernels could be made for a compiled function, so CuPy computes it operation by "
                    f"operation: {error}",
                    RuntimeWarning,
                    stacklevel=5,
                )
        from minidl.program.reference_executor import ReferenceExecutor

        return ReferenceExecutor(optimize(program))

    def _replay(self, recording: _Recording, leaves: list[Any]) -> Any:
        program, executor = recording.program, recording.executor
        for x, _ in recording.gradients:
            if x.grad is not None:
                raise RecordingError(
                    "a Parameter still has the gradient of the last call: call optimizer.step() or "
                    "optimizer.zero_grad() between calls of a compiled function"
                )
        for value, leaf in zip(program.inputs, leaves, strict=True):
            with devices.current(value.array):
                devices.array_module(value.array).copyto(value.array, _array(leaf).reshape(value.shape))
        expected = recording.evaluate([_array(leaf) for leaf in leaves]) if self.verify else None
        if self.poison:
            executor.poison()
        executor.run()
        for x in recording.updated:
            mark_assigned(x)
        results = [Tensor(devices.copy(executor.array(value))) for value in program.outputs]
        if expected is not None:
            _compare(recording, results, expected, exact=self.precision == "float32")
        for (x, _), g in zip(
            recording.gradients, results[len(results) - len(recording.gradients) :], strict=True
        ):
            x.grad = g
        return recording.rebuild(results)


def _check_tensor_cores(device: str) -> None:
    capability = devices.compute_capability(device)
    if capability < (8, 0):
        raise DeviceError(
            f"precision='bfloat16' needs a GPU of compute capability 8.0 or higher; {device} has "
            f"{capability[0]}.{capability[1]}: use 'float32'"
        )


#: How far a replay may be from plain execution, relatively and absolutely, by the bits of a number.
_TOLERANCES = {16: 1e-2, 32: 1e-4, 64: 1e-9}


def _compare(recording: _Recording, results: list[Tensor], expected: Any, exact: bool) -> None:
    outputs, updates = expected
    pairs = [
        (f"output {i}", x.numpy(), array) for i, (x, array) in enumerate(zip(results, outputs, strict=True))
    ]
    pairs += [(f"new state of shape {state.shape}", state.array, array) for state, array in updates.items()]
    # What has fewer bits on its way comes out less exact.
    floats = [x.dtype for x in recording.original.values() if x.dtype.kind == "f"]
    bits = min([64, *(8 * dtype.itemsize for dtype in floats)])
    tolerance = _TOLERANCES[bits]
    if bits == 32 and not exact:  # a factor that differs in its last bit may be rounded another way
        tolerance = 2e-2
    for name, replayed, plain in pairs:
        plain, replayed = devices.to_numpy(plain), devices.to_numpy(replayed)
        if not numpy.allclose(replayed, plain, rtol=tolerance, atol=tolerance, equal_nan=True):
            worst = numpy.abs(replayed - plain).max()
            raise AssertionError(
                f"verify: {name} differs between replay and plain execution by up to {worst:.3g}"
            )


# --- nests of arguments and results ---------------------------------------------------------------


def _is_leaf(x: Any) -> bool:
    return isinstance(x, Tensor) or devices.is_array(x)


def _flatten(nest: Any, leaves: list[Any], results: bool = False) -> Any:
    """Append the Tensors and arrays of a nest to ``leaves``; return a hashable description of it.

    An argument that is passed twice is one leaf, so that it is copied and computed with once.
    """
    if _is_leaf(nest):
        for i, other in enumerate(() if results else leaves):
            if other is nest:
                return ("the same as", i)
        leaves.append(nest)
        array = _array(nest)
        return (array.shape, array.dtype, devices.device_of(array), _requires_grad(nest))
    if isinstance(nest, (list, tuple)):
        return (type(nest).__name__, *(_flatten(item, leaves, results) for item in nest))
    if isinstance(nest, dict):
        return ("dict", *((key, _flatten(item, leaves, results)) for key, item in nest.items()))
    if results and nest is not None:
        raise RecordingError(
            f"a compiled function returns Tensors, or nests of them, not {type(nest).__name__}"
        )
    try:
        hash(nest)
    except TypeError:
        raise RecordingError(
            f"a compiled function takes Tensors, arrays and hashable values, not {type(nest).__name__}"
        ) from None
    # By its bits: 0.0 and -0.0 are equal, and NaN is not equal to itself.
    return (type(nest).__name__, float(nest).hex() if isinstance(nest, (float, numpy.floating)) else nest)


def _rebuild(nest: Any, replace: Callable[[Any], Any], results: bool = False) -> Any:
    """Return the nest with each Tensor or array replaced."""
    if _is_leaf(nest):
        return replace(nest)
    if isinstance(nest, tuple) and hasattr(nest, "_fields"):
        return type(nest)(*(_rebuild(item, replace) for item in nest))
    if isinstance(nest, (list, tuple)):
        return type(nest)(_rebuild(item, replace) for item in nest)
    if isinstance(nest, dict):
        return {key: _rebuild(item, replace) for key, item in nest.items()}
    return nest


def _array(leaf: Any) -> Any:
    return leaf.data if isinstance(leaf, Tensor) else leaf


def _requires_grad(leaf: Any) -> bool:
    return isinstance(leaf, Tensor) and leaf.requires_grad
