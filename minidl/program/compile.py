"""compile(): what the user calls. Records a function on its first call, replays it on the next."""

from __future__ import annotations

import functools
import inspect
import operator
import threading
import types
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy

from minidl import devices
from minidl.errors import DeviceError, RecordingError
from minidl.mode import mode
from minidl.program.cpu.threads import renew_after_fork
from minidl.program.guards import Surroundings, difference, probing, same
from minidl.program.lowered.rounding import PRECISIONS
from minidl.tensor import Parameter, Tensor, mark_assigned
from minidl.tracking import MISSING, Tracked, changes

if TYPE_CHECKING:
    from minidl.program.executor import Executor
    from minidl.program.program import Program, Value
    from minidl.program.recorder import Recorder


def compile(
    function: Callable[..., Any] | None = None,
    *,
    verify: bool = False,
    threads: int | None = None,
    kernels: str = "auto",
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
    threads : how many threads compute; by default one for each core this process may use, and one alone
        for small programs
    kernels : how the CPU computes: ``"c"`` by C functions generated from the recorded operations, which
        needs a C compiler; ``"numpy"`` by calls of NumPy; ``"auto"`` by C where a compiler is found and
        the program is large enough to gain from it. ``print(step.programs[0])`` says which it became.
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


#: How many programs of one function are kept; beyond, the one that was not used for longest is dropped.
MAX_PROGRAMS = 16
#: After how many recordings of one function a warning says what changes from call to call.
WARN_AFTER = 8
#: How often in a row a function may change Python's state before it is no longer recorded.
MAX_UNSTEADY = 3

_get_array = operator.attrgetter("_array")
_get_flag = operator.attrgetter("requires_grad")
_get_gradient = operator.attrgetter("_grad")
_is_none = functools.partial(operator.is_, None)


@dataclass(eq=False)
class _GradientRule:
    """What a call does to the ``.grad`` of one leaf: which there must be before, which there is after.

    ``leaf`` is a Tensor, or the position of an argument; ``read`` the program's input that takes the gradient
    in; ``output`` the place of the new gradient among the outputs, None for none, "as before" for the same.
    """

    leaf: Tensor | int
    before: tuple[Any, ...] | None
    read: Value | None
    output: int | str | None

    def tensor(self, leaves: list[Any]) -> Tensor:
        """Return the leaf."""
        return leaves[self.leaf] if isinstance(self.leaf, int) else self.leaf

    def fits(self, leaves: list[Any]) -> bool:
        """Return whether the leaf has such a gradient as it had when the function was recorded."""
        gradient = self.tensor(leaves)._grad
        return (None if gradient is None else _kind(gradient)) == self.before


@dataclass(eq=False)
class _AttributeRule:
    """An attribute that a call sets, to a nest of new results or to a constant."""

    owner: Tracked
    name: str
    nest: Any
    first: int  # of its Tensors among the outputs
    count: int
    is_read: bool


@dataclass(eq=False)
class _Recording:
    """One program of a compiled function, ready to be replayed, and what it takes for granted."""

    program: Program
    original: Program
    executor: Executor
    result: Any
    result_count: int
    surroundings: Surroundings
    outside: list[Tensor]
    updated: list[Tensor]
    arguments: dict[int, Tensor]  # those that must be these very Tensors, by position
    gradients: list[_GradientRule]
    attributes: list[_AttributeRule]
    objects: list[Any]  # whose ids are part of the key

    def __post_init__(self) -> None:
        self._arrays = [x._array for x in self.outside]
        self._flags = [x.requires_grad for x in self.outside]
        parameters = {
            id(x): x for x in (*self.outside, *self.surroundings.parameters) if isinstance(x, Parameter)
        }
        self._factors = [(x, x.learning_rate_factor, x.l2_factor) for x in parameters.values()]
        self._ids = {id(x) for x in self.outside}
        own = [not isinstance(rule.leaf, int) and rule.before is None for rule in self.gradients]
        self._without_gradient = [
            rule.leaf for rule, is_own in zip(self.gradients, own, strict=True) if is_own
        ]
        self._other_gradients = [rule for rule, is_own in zip(self.gradients, own, strict=True) if not is_own]
        self._ranges = [_range(x._array) for x in self.updated if isinstance(x._array, numpy.ndarray)]

    def is_valid(self, leaves: list[Any]) -> bool:
        """Return whether everything that the recording took for granted is still so."""
        return (
            all(map(operator.is_, map(_get_array, self.outside), self._arrays))
            and all(map(operator.is_, map(_get_flag, self.outside), self._flags))
            and all(map(_is_none, map(_get_gradient, self._without_gradient)))
            and all(rule.fits(leaves) for rule in self._other_gradients)
            and self._factors_hold()
            and self._arguments_fit(leaves)
            and self.surroundings.hold()
        )

    def _factors_hold(self) -> bool:
        for i, (x, rate, l2) in enumerate(self._factors):
            if x.learning_rate_factor is not rate or x.l2_factor is not l2:
                if not (same(x.learning_rate_factor, rate) and same(x.l2_factor, l2)):
                    return False
                self._factors[i] = (x, x.learning_rate_factor, x.l2_factor)
        return True

    def _arguments_fit(self, leaves: list[Any]) -> bool:
        for i, leaf in enumerate(leaves):
            if i in self.arguments:
                if leaf is not self.arguments[i]:
                    return False
            elif id(leaf) in self._ids or _is_within(leaf, self._ranges):
                return False
        return True

    def difference(self, leaves: list[Any]) -> str:
        """Return in words what is no longer as it was recorded."""
        for x, array, flag in zip(self.outside, self._arrays, self._flags, strict=True):
            if x.requires_grad is not flag:
                return f"requires_grad of a Tensor of shape {x.shape} is now {x.requires_grad}"
            if x._array is not array:
                return f"the array of a Tensor of shape {x.shape} was replaced"
        for rule in self.gradients:
            if not rule.fits(leaves):
                x = rule.tensor(leaves)
                return f"a Tensor of shape {x.shape} {'had no' if rule.before is None else 'had a'} gradient before"
        if not self._factors_hold():
            return "learning_rate_factor or l2_factor of a Parameter was changed"
        if not self._arguments_fit(leaves):
            return "an argument shares memory with other Tensors than before"
        return self.surroundings.difference() or "something that the function reads was changed"

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


@dataclass(eq=False)
class _Run:
    """A function that has run once while it was recorded."""

    recorder: Recorder
    inputs: list[Tensor]
    result: Any
    outputs: list[Tensor]
    structure: Any


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
        self.forget()

    def forget(self) -> None:
        """Drop all programs; the next call records anew."""
        self._recordings: dict[Any, list[_Recording]] = {}  # of each kind of arguments, the latest used first
        self._unsteady: dict[Any, int] = {}
        self._recorded = 0
        self._lock = threading.RLock()  # a program has one set of buffers, so one thread at a time
        renew_after_fork(self)

    def after_fork(self) -> None:
        """In a forked child, where no other thread is inside a call, begin with a free lock."""
        self._lock = threading.RLock()

    def __getstate__(self) -> dict[str, Any]:
        hidden = ("_recordings", "_unsteady", "_recorded", "_lock")
        return {name: value for name, value in vars(self).items() if name not in hidden}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self.forget()

    def __repr__(self) -> str:
        name = getattr(self.function, "__qualname__", type(self.function).__name__)
        count = len(self.programs)
        return f"<compiled {name}, {count} program{'s' * (count != 1)}>"

    def __get__(self, instance: Any, owner: type) -> Any:
        return self if instance is None else types.MethodType(self, instance)

    @property
    def programs(self) -> list[Program]:
        """The recorded programs, one for each kind of arguments and surroundings; print one to read it."""
        return [recording.program for several in self._recordings.values() for recording in several]

    def __call__(self, *arguments: Any, **keywords: Any) -> Any:
        """Replay the function, or record it if these arguments are new to it."""
        if mode.recorder is not None:  # inside another compiled function: become part of it
            return self.function(*arguments, **keywords)
        leaves: list[Any] = []
        objects: list[Any] = []
        key = (_flatten((arguments, keywords), leaves, objects), mode.grad_enabled)
        with self._lock:
            several = self._recordings.get(key, [])
            for i, recording in enumerate(several):
                if recording.is_valid(leaves):
                    if i:
                        several.insert(0, several.pop(i))
                    return self._replay(recording, leaves)
            if self._unsteady.get(key, 0) >= MAX_UNSTEADY:
                return self.function(*arguments, **keywords)
            recording = self._record(key, arguments, keywords, leaves, objects)
            if recording is None:
                return self.function(*arguments, **keywords)
            # The first result comes from the program too, so that it does not matter, to the last bit, when
            # a function was recorded: a training that is resumed ends where one without a break does.
            return self._replay(recording, leaves)

    # --- recording --------------------------------------------------------------------------------

    def _record(
        self, key: Any, arguments: Any, keywords: Any, leaves: list[Any], objects: list[Any]
    ) -> _Recording | None:
        """Record a new program; None for a function that changes Python's state, which no program can."""
        surroundings = Surroundings(self.function, objects)
        if surroundings.iterators:
            raise RecordingError(
                f"{_name_of(self.function)} can read from the iterator {surroundings.iterators[0]!r}, which no "
                "replay would advance: take the item outside, and pass it as an argument"
            )
        reason = self._reason(key, leaves)
        identical: dict[int, Tensor] = {}
        while True:
            first = self._run(arguments, keywords, leaves, identical, surroundings)
            first.recorder.rewind()
            surroundings.restore()
            shared = _shared_arguments(first.recorder, leaves, identical)
            if not shared:
                break
            identical |= shared
        written = [(owner, name) for owner, name, _ in first.recorder.attributes.values()]
        with probing(written) as read:
            second = self._run(arguments, keywords, leaves, identical, surroundings)
        self._refuse_other_constants(first, second, surroundings)
        change = surroundings.contents_difference()
        rules = None if change else _attribute_rules(second, read)
        if rules is None:
            second.recorder.rewind()
            surroundings.restore()
            self._note_unsteady(key, change or "it sets attributes to new objects")
            return None
        self._unsteady.pop(key, None)
        recording = self._finished(second, leaves, identical, surroundings, rules, objects)
        self._keep(key, recording, reason)
        return recording

    def _run(
        self,
        arguments: Any,
        keywords: Any,
        leaves: list[Any],
        identical: dict[int, Tensor],
        surroundings: Surroundings,
    ) -> _Run:
        """Run the function once, and record it; if it fails, leave everything as it was."""
        from minidl.program.recorder import Recorder  # not needed where nothing is compiled

        stand_ins = [
            identical.get(i) or Tensor(devices.native_copy(_array(leaf)), _requires_grad(leaf))
            for i, leaf in enumerate(leaves)
        ]
        for x, leaf in zip(stand_ins, leaves, strict=True):
            if x is not leaf and isinstance(leaf, Tensor):
                x._grad = leaf._grad
        recorder = Recorder([x for i, x in enumerate(stand_ins) if i not in identical])
        input_of = {id(leaf): x for leaf, x in zip(leaves, stand_ins, strict=True)}
        arguments, keywords = _rebuild((arguments, keywords), lambda leaf: input_of.get(id(leaf), leaf))
        mode.recorder = recorder
        try:
            result = self.function(*arguments, **keywords)
            mode.recorder = None
            outputs: list[Any] = []
            structure = _flatten(result, outputs, [], results=True)
        except BaseException:
            mode.recorder = None
            recorder.rewind()
            surroundings.restore()
            raise
        finally:
            mode.recorder = None
        return _Run(recorder, stand_ins, result, outputs, structure)

    def _refuse_other_constants(self, first: _Run, second: _Run, surroundings: Surroundings) -> None:
        """Refuse a function that did not do the same when it ran a second time."""
        from minidl.program.recorder import described

        place = difference(first.recorder, second.recorder)
        source = surroundings.drawn()
        if place is None and source is None and first.structure == second.structure:
            return
        second.recorder.rewind()
        surroundings.restore()
        where = described(place) if place is not None else f"{_name_of(self.function)}, or what it calls,"
        what = f"draws from {source}" if source is not None and place is None else (
            "does not do the same each time: it draws random numbers that are not minidl's, reads a clock or a "
            "file, or counts"
        )  # fmt: skip
        raise RecordingError(
            f"{where} {what}; a replay would repeat what was found while recording. Use minidl.random or a "
            "minidl.Generator for random numbers, and pass what changes as an argument"
        )

    def _finished(
        self,
        run: _Run,
        leaves: list[Any],
        identical: dict[int, Tensor],
        surroundings: Surroundings,
        attributes: list[_AttributeRule],
        objects: list[Any],
    ) -> _Recording:
        """Turn a recorded run into something that can be replayed, and undo what it did."""
        from minidl.program.passes.precision import round_factors

        recorder, outputs = run.recorder, list(run.outputs)
        gradients = _gradient_rules(run, outputs)
        for rule in attributes:
            kept: list[Tensor] = []
            _flatten(rule.nest, kept, [])
            rule.first, rule.count = len(outputs), len(kept)
            outputs += kept
            if not rule.is_read:
                surroundings.free(rule.owner, rule.name)
        try:
            recorded = recorder.finish(outputs)
        finally:
            recorder.rewind()
        original = round_factors(recorded, self.precision)
        executor = self._executor(recorded, original)
        program = executor.program
        program.executor = executor
        recorder.release(set())
        updated = {id(state.tensor): state.tensor for state in program.updates if state.tensor is not None}
        return _Recording(
            program,
            original,
            executor,
            run.result,
            len(run.outputs),
            surroundings,
            recorder.outside,
            list(updated.values()),
            identical,
            gradients,
            attributes,
            objects,
        )

    def _keep(self, key: Any, recording: _Recording, reason: str) -> None:
        """Store a recording, drop the oldest of too many, and say what goes on if they become many."""
        self._recordings[key] = [recording, *self._recordings.pop(key, [])]  # the latest key is the last one
        while len(self.programs) > MAX_PROGRAMS:
            oldest = next(iter(self._recordings))
            self._recordings[oldest].pop()
            if not self._recordings[oldest]:
                del self._recordings[oldest]
        self._recorded += 1
        if self._recorded == WARN_AFTER:
            warnings.warn(
                f"{_name_of(self.function)} has been recorded {WARN_AFTER} times, which takes time and memory (the "
                f"latest {MAX_PROGRAMS} programs are kept). The last time, {reason}. Pass what changes from "
                "call to call as a Tensor or an array, and keep the lengths of arrays to a few",
                RuntimeWarning,
                stacklevel=5,
            )

    def _reason(self, key: Any, leaves: list[Any]) -> str:
        """Return in words why a new program is recorded."""
        if self._recordings.get(key):
            return self._recordings[key][0].difference(leaves)
        if self._recordings:
            return _difference_of_keys(next(reversed(self._recordings)), key)
        return "it was new"

    def _note_unsteady(self, key: Any, change: str) -> None:
        self._unsteady[key] = self._unsteady.get(key, 0) + 1
        if self._unsteady[key] == MAX_UNSTEADY:
            warnings.warn(
                f"{_name_of(self.function)} changes Python's state at every call ({change}), which a replay "
                "would not: it runs without being compiled. Return what it computes instead, or keep it in a "
                "Tensor that is assigned",
                RuntimeWarning,
                stacklevel=5,
            )

    def _executor(self, recorded: Program, program: Program) -> Executor:
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

    # --- replaying --------------------------------------------------------------------------------

    def _replay(self, recording: _Recording, leaves: list[Any]) -> Any:
        program, executor = recording.program, recording.executor
        arrays = [_array(leaf) for i, leaf in enumerate(leaves) if i not in recording.arguments]
        arrays += [
            rule.tensor(leaves)._grad._array  # type: ignore[union-attr]
            for rule in recording.gradients
            if rule.read is not None
        ]
        for value, array in zip(program.inputs, arrays, strict=True):
            with devices.current(value.array):
                devices.array_module(value.array).copyto(value.array, array.reshape(value.shape))
        expected = recording.evaluate(arrays) if self.verify else None
        if self.poison:
            executor.poison()
        executor.run()
        for x in recording.updated:
            mark_assigned(x)
        results = [Tensor(devices.copy(executor.array(value))) for value in program.outputs]
        if expected is not None:
            _compare(recording, results, expected, exact=self.precision == "float32")
        for rule in recording.gradients:
            if rule.output is None:
                rule.tensor(leaves)._grad = None
            elif isinstance(rule.output, int):
                rule.tensor(leaves)._grad = results[rule.output]
        for attribute in recording.attributes:
            kept = results[attribute.first : attribute.first + attribute.count]
            nest = _rebuild(attribute.nest, lambda leaf, kept=kept: kept.pop(0))  # type: ignore[misc]
            vars(attribute.owner)[attribute.name] = nest
            changes.count += attribute.is_read
        returned = results[: recording.result_count]
        return _rebuild(recording.result, lambda leaf: returned.pop(0))


def _name_of(function: Any) -> str:
    code = getattr(inspect.unwrap(function), "__code__", None) if callable(function) else None
    name = getattr(function, "__qualname__", type(function).__name__)
    return name if code is None else f"{name} ({Path(code.co_filename).name}, line {code.co_firstlineno})"


def _kind(x: Tensor) -> tuple[Any, ...]:
    return (x.shape, x.dtype, x.device)


def _range(array: numpy.ndarray) -> tuple[int, int]:
    """Return the addresses between which an array lies."""
    return numpy.lib.array_utils.byte_bounds(array)


def _is_within(leaf: Any, ranges: list[tuple[int, int]]) -> bool:
    """Return whether an argument is a view into one of several ranges of memory."""
    array = _array(leaf)
    if not ranges or not isinstance(array, numpy.ndarray) or array.base is None:
        return False
    low, high = _range(array)
    return any(low < end and start < high for start, end in ranges)


def _shared_arguments(
    recorder: Recorder, leaves: list[Any], identical: dict[int, Tensor]
) -> dict[int, Tensor]:
    """Return the arguments, by position, that are state of the function as well: for these, no copy will do."""
    outside = {id(x) for x in recorder.outside}
    updated = [state.array for state in recorder.program.updates if isinstance(state.array, numpy.ndarray)]
    shared: dict[int, Tensor] = {}
    for i, leaf in enumerate(leaves):
        if i in identical:
            continue
        if id(leaf) in outside:
            shared[i] = leaf
        elif any(_array(leaf) is array for array in updated) or _is_within(
            leaf, [_range(a) for a in updated]
        ):
            if not isinstance(leaf, Tensor):
                raise RecordingError(
                    f"argument {i} of a compiled function shares its memory with a Tensor that the function "
                    "assigns: pass a copy"
                )
            shared[i] = leaf
    return shared


def _gradient_rules(run: _Run, outputs: list[Tensor]) -> list[_GradientRule]:
    """Return what a run did to gradients; new ones are appended to the outputs."""
    positions = {id(x): i for i, x in enumerate(run.inputs)}
    rules = []
    for gradient in run.recorder.gradients.values():
        after, output = gradient.leaf._grad, None
        if after is not None and after is gradient.before:
            output: int | str | None = "as before"
        elif after is not None:
            output = len(outputs)
            outputs.append(after)
        before = None if gradient.before is None else _kind(gradient.before)
        leaf: Tensor | int = positions.get(id(gradient.leaf), gradient.leaf)
        rules.append(_GradientRule(leaf, before, gradient.value, output))
    # In the order in which the program has them as inputs.
    order = {id(value): i for i, value in enumerate(run.recorder.program.inputs)}
    return sorted(rules, key=lambda rule: order.get(id(rule.read), -1))


def _attribute_rules(run: _Run, read: set[tuple[int, str]]) -> list[_AttributeRule] | None:
    """Return the attributes that a run set; None if one of them holds what cannot be made again."""
    rules = []
    for owner, name, before in run.recorder.attributes.values():
        after = vars(owner).get(name, MISSING)
        if after is before:
            continue
        if after is MISSING or not _is_nest(after):
            return None
        rules.append(_AttributeRule(owner, name, after, 0, 0, (id(owner), name) in read))
    return rules


def _is_nest(x: Any) -> bool:
    """Return whether a value consists of Tensors, plain values, and lists, tuples and dicts of them."""
    if isinstance(x, (list, tuple)):
        return all(map(_is_nest, x))
    if isinstance(x, dict):
        return all(map(_is_nest, x.values()))
    return isinstance(
        x, (Tensor, bool, int, float, complex, str, bytes, numpy.dtype, numpy.generic, type(None))
    )


def _difference_of_keys(old: Any, new: Any) -> str:
    """Return in words how the arguments of two calls differ."""
    (old_structure, old_mode), (new_structure, new_mode) = old, new
    if old_mode != new_mode:
        return f"gradients were {'on' if old_mode else 'off'} before and are {'on' if new_mode else 'off'}"
    pairs = [(old_structure, new_structure)]
    while pairs:
        a, b = pairs.pop(0)
        if a == b:
            continue
        if (
            isinstance(a, tuple)
            and isinstance(b, tuple)
            and len(a) == len(b)
            and not isinstance(a[0], tuple | int)
        ):
            if all(isinstance(part, tuple) for part in (*a[1:], *b[1:])) and a[0] == b[0]:
                pairs += list(zip(a[1:], b[1:], strict=True))
                continue
        if isinstance(a, tuple) and isinstance(b, tuple) and a[:1] == b[:1] == ("number",):
            a, b = a[-1], b[-1]
        return f"an argument was {_shown(a)} before and is {_shown(b)}"
    return "the arguments were others"


def _shown(description: Any) -> str:
    if isinstance(description, tuple) and description[:1] == ("array",):
        return f"of shape {description[1]} and dtype {description[2]}"
    return repr(description)[:60]


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


def _flatten(nest: Any, leaves: list[Any], objects: list[Any], results: bool = False) -> Any:
    """Append the Tensors and arrays of a nest to ``leaves``; return a hashable description of it.

    An argument that is passed twice is one leaf, so that it is copied and computed with once. Parameters, and
    objects that are no plain values, are part of the description by their identity; they are appended to
    ``objects``, which keeps them alive.
    """
    if _is_leaf(nest):
        if isinstance(nest, Parameter) and not results:
            objects.append(nest)
            return ("Parameter", id(nest))
        for i, other in enumerate(() if results else leaves):
            if other is nest:
                return ("the same as", i)
        leaves.append(nest)
        array = nest._array if isinstance(nest, Tensor) else nest
        return (
            "array",
            array.shape,
            array.dtype if array.dtype.isnative else array.dtype.newbyteorder("="),
            devices.device_of(array),
            _requires_grad(nest),
        )
    if isinstance(nest, (list, tuple)):
        return (type(nest), *(_flatten(item, leaves, objects, results) for item in nest))
    if isinstance(nest, dict):
        return ("dict", *((key, _flatten(item, leaves, objects, results)) for key, item in nest.items()))
    if results and nest is not None:
        raise RecordingError(
            f"a compiled function returns Tensors, or nests of them, not {type(nest).__name__}"
        )
    # By its bits: 0.0 and -0.0 are equal, and NaN is not equal to itself.
    if isinstance(nest, (float, numpy.floating)):
        return ("number", type(nest), float(nest).hex())
    if isinstance(nest, (bool, int, complex, str, bytes, numpy.generic, numpy.dtype, type, type(None))):
        return ("number", type(nest), nest)
    if isinstance(nest, slice):
        return (
            slice,
            *(_flatten(part, leaves, objects, results) for part in (nest.start, nest.stop, nest.step)),
        )
    objects.append(nest)
    return ("object", type(nest), id(nest))


def _rebuild(nest: Any, replace: Callable[[Any], Any]) -> Any:
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
    return leaf._array if isinstance(leaf, Tensor) else leaf


def _requires_grad(leaf: Any) -> bool:
    return isinstance(leaf, Tensor) and leaf.requires_grad
