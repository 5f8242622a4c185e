"""compile(): what the user calls. Records a function on its first call, replays it on the next."""

from __future__ import annotations

import functools
import inspect
import operator
import os.path
import sys
import threading
import types
import warnings
from collections.abc import Callable
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any, Generic, TypeVar, overload

from minidl import devices
from minidl.errors import DeviceError, RecordingError
from minidl.mode import mode
from minidl.program.arguments import (
    Arguments,
    contents_of,
    difference_of_keys,
    rebuilt,
    results_of,
    shape_of,
    without_numbers,
)
from minidl.program.cpu.threads import renew_after_fork
from minidl.program.lowered.rounding import PRECISIONS
from minidl.tensor import Tensor
from minidl.tracking import TracedNumber

# What is needed only once something is compiled is imported there: `import minidl` is quick.
if TYPE_CHECKING:
    from minidl.program.executor import Executor
    from minidl.program.guards import Surroundings
    from minidl.program.program import Program
    from minidl.program.recording import AttributeRule, Recording, Run

Result = TypeVar("Result")


@overload
def compile(
    function: Callable[..., Result],
    *,
    verify: bool = ...,
    threads: int | None = ...,
    kernels: str = ...,
    precision: str = ...,
    poison: bool = ...,
) -> Compiled[Result]: ...


@overload
def compile(
    function: None = None,
    *,
    verify: bool = ...,
    threads: int | None = ...,
    kernels: str = ...,
    precision: str = ...,
    poison: bool = ...,
) -> Callable[[Callable[..., Result]], Compiled[Result]]: ...


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

    The first call runs the function twice as it is, and records every operation: forward, backward,
    optimizer update. On the CPU nothing is computed meanwhile: results have shapes and dtypes. This call and
    later ones with arguments of the same shapes, dtypes and devices replay the record: no tape, no
    allocation, elementwise work in cache-sized blocks on all cores, or, on a GPU, generated kernels in a
    CUDA graph. Use it as ``@compile`` or ``step = compile(step)``.

    A compiled function does what the plain function would do: the same results, and the same state
    afterwards. Parameters and other Tensors from outside are read at each call. Whatever else the function
    reads - attributes of Layers, optimizers and other objects, closure variables, globals, default
    arguments, contents of lists, dicts and arrays, the training mode - is compared at each call, and where it
    has changed, another program is recorded. Floats among the arguments that are only computed with are
    inputs. Checks of values, as losses make them, are made at each call. Gradients that are there before a
    call, or left after it, are treated as by the plain function; attributes that it sets to Tensors are set
    at each call; and gradients flow through its results unless it assigns or draws.

    What cannot be replayed is refused with the line, even if the function catches the error: reading values
    into Python, files, folders and other processes, and what differs when the function runs a second time
    (random numbers that are not minidl's, clocks, counters, iterators). A
    function that changes Python's state at every call, as by appending to a list, runs without being
    compiled, with a warning. Prints appear while recording only. At most 16 programs are kept for a
    function; a warning names what changes from call to call when they become many.

    Parameters
    ----------
    function : takes Tensors, arrays, numbers and nested lists, tuples and dicts of them; returns
        Tensors in such a nest, or None
    verify : at every call, also run the plain function, and compare results, state and gradients
    threads : how many threads compute; by default one for each core this process may use, and one alone
        for small programs
    kernels : how the CPU computes: ``"c"`` by C functions generated from the recorded operations, which
        needs a C compiler; ``"numpy"`` by calls of NumPy; ``"auto"`` by C where a compiler is found and
        the program is large enough to gain from it. ``print(step.programs[0])`` says which it became.
    precision : of matrix products and convolutions of float32. ``"tf32"`` and ``"bfloat16"`` round their
        factors to 10 and to 7 bits (after the leading one) for the speed of a GPU's tensor cores; products
        are summed, and everything else is computed and stored, in float32, so the loss needs no scaling. The
        CPU rounds alike, which takes longer, to show what it costs in accuracy. bfloat16 needs a GPU of
        compute capability 8.0 or higher (2020 and later).
    poison : fill every buffer with NaN before each replay, to find a step that reads what it
        should not

    Type checkers know the result by the function's annotation; arguments may be arrays where it says Tensor.

    Raises
    ------
    TypeError, ValueError
        An option, or the function, is none of what is listed here.
    RecordingError
        While recording, the function reads a value into Python (a branch, ``item()``), or does
        something else that a replay could not repeat; the message names the line.
    """
    _check_options(threads, kernels, precision)
    if function is None:
        return functools.partial(
            compile, verify=verify, threads=threads, kernels=kernels, precision=precision, poison=poison
        )
    if not callable(function):
        raise TypeError(f"compile() takes a function, got {function!r:.60}")
    compiled: Any = Compiled(function, verify, threads, kernels, precision, poison)
    return functools.wraps(function)(compiled)


def _check_options(threads: Any, kernels: Any, precision: Any) -> None:
    """Refuse an option before anything is recorded."""
    from minidl.program.cpu.choices import KERNELS

    if threads is not None and (isinstance(threads, bool) or not hasattr(type(threads), "__index__")):
        raise TypeError(f"compile(): threads is an integer or None, got {threads!r:.60}")
    if threads is not None and threads < 1:
        raise ValueError(f"compile(): threads is 1 or more, or None, got {threads}")
    for name, value, known in (("kernels", kernels, KERNELS), ("precision", precision, (*PRECISIONS,))):
        if not isinstance(value, str) or value not in known:
            advice = "; a GPU always has its own" if name == "kernels" and value in ("cuda", "gpu") else ""
            choices = ", ".join(map(repr, known))
            raise ValueError(f"unknown {name} {value!r:.60}: use one of {choices}{advice}")


#: How many programs of one function are kept; beyond, the one that was not used for longest is dropped.
MAX_PROGRAMS = 16
#: After how many recordings of one function a warning says what changes from call to call.
WARN_AFTER = 8
#: How often in a row a function may change Python's state before it is no longer recorded.
MAX_UNSTEADY = 3


class Compiled(Generic[Result]):
    """A compiled function; `programs` lists what has been recorded so far."""

    def __init__(
        self,
        function: Callable[..., Result],
        verify: bool,
        threads: int | None,
        kernels: str,
        precision: str,
        poison: bool,
    ):
        self.function = function
        self.verify, self.poison = verify, poison
        self.threads, self.kernels, self.precision = threads, kernels, precision
        self.forget()

    def forget(self) -> None:
        """Drop all programs; the next call records anew."""
        self._recordings: dict[Any, list[Recording]] = {}  # of each kind of arguments, the latest used first
        self._unsteady: dict[Any, int] = {}
        self._exact: dict[Any, Any] = {}  # the first key of each kind but for numbers
        self._special: set[Any] = set()  # kinds whose numbers are looked at
        self._general = False  # whether a program serves several numbers
        self._recorded = 0
        from minidl.program.plan.memory import Arena

        self._arena = Arena()
        self._lock = threading.RLock()  # a program has one set of buffers, so one thread at a time
        renew_after_fork(self)

    def like(self, function: Callable[..., Any]) -> Compiled[Any]:
        """Return another function compiled with the same options."""
        return Compiled(function, self.verify, self.threads, self.kernels, self.precision, self.poison)

    def after_fork(self) -> None:
        """In a forked child, where no other thread is inside a call, begin with a free lock."""
        self._lock = threading.RLock()

    def __reduce_ex__(self, protocol: Any) -> Any:
        """Pickle a decorated function of a module by its name, as Python does; any other as a function."""
        name = getattr(self, "__qualname__", "")
        found: Any = sys.modules.get(getattr(self, "__module__", ""))
        for part in name.split("."):
            found = getattr(found, part, None)
        return name if found is self else super().__reduce_ex__(protocol)

    def __getstate__(self) -> dict[str, Any]:
        hidden = (
            "_arena",
            "_recordings",
            "_unsteady",
            "_exact",
            "_special",
            "_general",
            "_recorded",
            "_lock",
        )
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

    def __call__(self, *arguments: Any, **keywords: Any) -> Result:
        """Replay the function, or record it if these arguments are new to it."""
        if mode.recorder is not None:  # inside another compiled function: become part of it
            return self.function(*arguments, **keywords)
        call = Arguments((arguments, keywords))
        key = (call.key, mode.grad_enabled, mode.share)
        with self._lock:
            recording = self._find(key, call)
            if recording is None and self._unsteady.get(key, 0) < MAX_UNSTEADY:
                recording = self._record(key, call, arguments, keywords)
            if recording is None:
                return self.function(*arguments, **keywords)
            # The first result comes from the program too, so that it does not matter, to the last bit, when
            # a function was recorded: a training that is resumed ends where one without a break does.
            return self._replay(recording, call, arguments, keywords)

    def _find(self, key: Any, call: Arguments) -> Recording | None:
        """Return a program that serves a call, if there is one."""
        for possible in (key, *([without_numbers(key)] if call.numbers and self._general else [])):
            several = self._recordings.get(possible, [])
            for i, recording in enumerate(several):
                if recording.is_valid(call.leaves, call.numbers):
                    if i:
                        several.insert(0, several.pop(i))
                    return recording
        return None

    # --- recording --------------------------------------------------------------------------------

    def _record(self, key: Any, call: Arguments, arguments: Any, keywords: Any) -> Recording | None:
        """Record a new program; None for a function that changes Python's state, which no program can."""
        from minidl.program.guards import Surroundings

        surroundings = Surroundings(self.function, call.objects)
        if surroundings.iterators:
            raise RecordingError(
                f"{_name_of(self.function)} can read from the iterator {surroundings.iterators[0]!r}, which "
                "no replay would advance: take the item outside, and pass it as an argument"
            )
        reason = self._reason(key, call.leaves)
        run = _Recorder(self.function, call, arguments, keywords, surroundings)
        first = run.rewound()
        general = without_numbers(key)
        second: Run | str | None = None
        if call.numbers and self._exact.setdefault(general, key) != key and general not in self._special:
            second = run.for_all_numbers(first)
            if second is None:
                self._special.add(general)
            else:
                self._general, key = True, general
        second = second or run.once_more(first)
        if isinstance(second, str):
            self._note_unsteady(key, second)
            return None
        self._unsteady.pop(key, None)
        recording = self._finished(second, call, run, surroundings)
        self._keep(key, recording, reason)
        return recording

    def _finished(self, run: Run, call: Arguments, runs: _Recorder, surroundings: Surroundings) -> Recording:
        """Turn a recorded run into something that can be replayed, and undo what it did."""
        from minidl.program.passes.precision import round_factors
        from minidl.program.recording import Recording, gradient_rules

        recorder, outputs = run.recorder, list(run.outputs)
        try:
            gradients = gradient_rules(run, outputs)
            for rule in runs.attributes:
                rule.first = len(outputs)
                outputs += rule.results()
                if not rule.is_read:
                    surroundings.free(rule.owner, rule.name)
            differentiable = [y.requires_grad and y.inputs is not None for y in outputs]
            recorded = recorder.finish(outputs)
            order = {id(value): i for i, value in enumerate(recorded.inputs)}
            gradients.sort(key=lambda rule: order.get(id(rule.read), -1))
        finally:
            recorder.rewind()
        original = round_factors(recorded, self.precision)
        executor = self._executor(recorded, original)
        program = executor.program
        program.executor = executor
        recorder.release()
        updated = {id(state.tensor): state.tensor for state in program.updates if state.tensor is not None}
        return Recording(
            program=program,
            original=original,
            executor=executor,
            result=run.result,
            differentiable=differentiable,
            surroundings=surroundings,
            outside=recorder.outside,
            updated=list(updated.values()),
            arguments=runs.identical,
            gradients=gradients,
            attributes=runs.attributes,
            objects=call.objects,
            numbers=recorder.numbers(),
            checks=recorder.checks,
        )

    def _keep(self, key: Any, recording: Recording, reason: str) -> None:
        """Store a recording, drop the oldest of too many, and say what goes on if they become many."""
        self._recordings[key] = [recording, *self._recordings.pop(key, [])]  # the latest key is the last one
        while len(self.programs) > MAX_PROGRAMS:
            oldest = next(iter(self._recordings))
            self._recordings[oldest].pop().program.executor = None  # without this circle, memory is freed now
            if not self._recordings[oldest]:
                del self._recordings[oldest]
        self._recorded += 1
        if self._recorded == WARN_AFTER:
            self._warn(
                f"has been recorded {WARN_AFTER} times, which takes time and memory (the latest "
                f"{MAX_PROGRAMS} programs are kept). The last time, {reason}. Pass what changes from call to "
                "call as a Tensor or an array, and keep the lengths of arrays to a few"
            )

    def _reason(self, key: Any, leaves: list[Any]) -> str:
        """Return in words why a new program is recorded."""
        if self._recordings.get(key):
            return self._recordings[key][0].difference(leaves)
        if self._recordings:
            return difference_of_keys(next(reversed(self._recordings)), key)
        return "it was new"

    def _note_unsteady(self, key: Any, change: str) -> None:
        self._unsteady[key] = self._unsteady.get(key, 0) + 1
        if self._unsteady[key] == MAX_UNSTEADY:
            self._warn(
                f"changes Python's state at every call ({change}), which a replay would not: it runs without "
                "being compiled. Return what it computes instead, or keep it in a Tensor that is assigned"
            )

    def _warn(self, message: str) -> None:
        from minidl.program.recorder import PACKAGE

        level, frame = 1, sys._getframe()
        while frame.f_back is not None and frame.f_code.co_filename.startswith(PACKAGE):
            level, frame = level + 1, frame.f_back  # the warning names the line of the user's call
        warnings.warn(f"{_name_of(self.function)} {message}", RuntimeWarning, stacklevel=level)

    def _executor(self, recorded: Program, program: Program) -> Executor:
        """Return what runs an improved form of a program where its arrays are.

        ``program`` is the recorded one with the factors of its products rounded.
        """
        from minidl.program.passes.pipeline import optimize

        places = {devices.device_of(value.array) for value in program.values() if value.array is not None}
        if places <= {"cpu"}:
            from minidl.program.cpu.executor import NumpyExecutor

            return NumpyExecutor(optimize(program), self.threads, self.kernels, self._arena)
        if len(places) == 1:
            from minidl.program.gpu.executor import CupyExecutor

            (place,), tf32 = places, self.precision != "float32"  # which keeps what is rounded to bfloat16
            if self.precision == "tf32":
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

    def _replay(self, recording: Recording, call: Arguments, arguments: Any, keywords: Any) -> Result:
        recording.check(call.leaves)
        expected = None
        if self.verify:
            from minidl.program.verify import Plain

            expected = Plain(self.function, arguments, keywords)
        recording.fill(call.leaves, call.numbers)
        if self.poison:
            recording.executor.poison()
        recording.executor.run()
        result: Result
        result, outputs = recording.collect(call.leaves)
        if expected is not None:
            expected.compare(result, recording.original, exact=self.precision == "float32")
        if any(recording.differentiable):
            from minidl.program.differentiate import attach

            attach(self, recording, call, outputs, arguments, keywords)
        return result


class _Recorder:
    """Runs a function under a Recorder, as often as needed, always from the same state.

    Attributes
    ----------
    identical : the arguments, by position, that are state of the function too, and are not copied
    attributes : what the last run set, of attributes
    computes : whether results have values while the function runs; see shape_inference.py
    """

    def __init__(
        self, function: Any, call: Arguments, arguments: Any, keywords: Any, surroundings: Surroundings
    ):
        self.function, self.call, self.surroundings = function, call, surroundings
        self.nest = (arguments, keywords)
        self.identical: dict[int, Tensor] = {}
        self.attributes: list[AttributeRule] = []
        self.changes_arguments = False
        self.computes = False

    def rewound(self) -> Run:
        """Run once, and undo it; find out which arguments cannot be copied."""
        from minidl.program.recording import shared_arguments

        while True:
            run = self._run()
            self._undo(run, draws=False)  # so that other numbers are drawn the next time
            shared = shared_arguments(run.recorder, self.call.leaves, self.identical)
            if not shared:
                return run
            self.identical |= shared

    def once_more(self, first: Run) -> Run | str:
        """Run again, and compare; return what the function changes in Python, if it does.

        Raises
        ------
        RecordingError
            The second run did not do the same.
        """
        from minidl.program.recorder import described
        from minidl.program.repetition import difference

        second, change = self._observed(first, None)
        place, source = difference(first.recorder, second.recorder), self.surroundings.drawn()
        if place is None and source is None and shape_of(first.result) == shape_of(second.result):
            if change is not None:
                self._undo(second)
                return change
            return second
        self._undo(second)
        where = described(place) if place is not None else f"{_name_of(self.function)}, or what it calls,"
        what = (
            f"draws from {source}"
            if source is not None and place is None
            else "does not do the same each time: it draws random numbers that are not minidl's, reads a "
            "clock or a file, or counts"
        )
        raise RecordingError(
            f"{where} {what}; a replay would repeat what was found while recording. Use minidl.random or a "
            "minidl.Generator for random numbers, and pass what changes as an argument"
        )

    def for_all_numbers(self, first: Run) -> Run | None:
        """Run with floats that Python cannot look at without notice; None if it did."""
        from minidl.program.repetition import same_steps

        numbers: list[TracedNumber] = []
        try:
            run, change = self._observed(first, numbers)
        except Exception:
            return None
        if (
            change is None
            and not any(number.is_read for number in numbers)
            and self.surroundings.drawn() is None
            and same_steps(first.recorder, run.recorder)
            and shape_of(first.result) == shape_of(run.result)
        ):
            return run
        self._undo(run)
        return None

    def _observed(self, first: Run, numbers: list[TracedNumber] | None) -> tuple[Run, str | None]:
        """Run while it is noted which attributes are read before they are set."""
        from minidl.program.recording import attribute_rules
        from minidl.program.repetition import probing

        written = [(owner, name) for owner, name, _ in first.recorder.attributes.values()]
        with probing(written) as read:
            run = self._run(numbers)
        change = self.surroundings.contents_difference()
        if change is None and self.changes_arguments:
            change = "it changes a list or dict that is an argument"
        rules = attribute_rules(run, read)
        self.attributes = rules or []
        return run, change or ("it sets attributes to new objects" if rules is None else None)

    def _undo(self, run: Run, draws: bool = True) -> None:
        run.recorder.rewind()
        self.surroundings.restore(draws)

    def _run(self, numbers: list[TracedNumber] | None = None) -> Run:
        """Run once; if that fails, leave everything as it was. Numbers that are made join ``numbers``.

        Results have no values, unless the function applies a primitive that must be computed.
        """
        from minidl.program.shape_inference import NeedsValues

        count = 0 if numbers is None else len(numbers)
        try:
            return self._run_once(numbers)
        except NeedsValues:
            self.computes = True
        if numbers is not None:
            del numbers[count:]
        return self._run_once(numbers)

    def _run_once(self, numbers: list[TracedNumber] | None) -> Run:
        from minidl.program.cpu.blas import with_one_blas_thread_each
        from minidl.program.outside_world import clocks_refused, watch
        from minidl.program.recorder import Recorder  # not needed where nothing is compiled
        from minidl.program.recording import Run
        from minidl.program.shape_inference import NeedsValues

        leaves = self.call.leaves
        stand_ins = [
            self.identical[i] if i in self.identical else _stand_in(leaf) for i, leaf in enumerate(leaves)
        ]
        inputs = [x for i, x in enumerate(stand_ins) if i not in self.identical]
        recorder = Recorder(inputs, stand_ins, self.computes)
        by_id = {id(leaf): x for leaf, x in zip(leaves, stand_ins, strict=True)}

        def traced(value: float) -> TracedNumber:
            assert numbers is not None
            numbers.append(TracedNumber(value, operator.itemgetter(len(numbers)), recorder.number_input))
            return numbers[-1]

        arguments, keywords = rebuilt(
            self.nest, lambda leaf: by_id.get(id(leaf), leaf), None if numbers is None else traced
        )
        given = (arguments, keywords)
        contents = contents_of(given)
        watch()
        mode.recorder = recorder
        try:
            clocks = clocks_refused(recorder) if self.surroundings.may_read_a_clock else nullcontext()
            with clocks:
                # The threads of BLAS would wait for each other between many small products.
                result = with_one_blas_thread_each(functools.partial(self.function, *arguments, **keywords))
            mode.recorder = None
            if recorder.needs_values:  # the function caught it
                raise NeedsValues
            if recorder.refusal is not None:
                raise recorder.refusal
            outputs = results_of(result)
            self.changes_arguments = contents_of(given) != contents
        except BaseException:
            mode.recorder = None
            recorder.rewind()
            self.surroundings.restore()
            raise
        return Run(recorder, stand_ins, result, outputs)


def _stand_in(leaf: Any) -> Tensor:
    """Return a copy of an argument, for the function to run with while it is recorded."""
    if not isinstance(leaf, Tensor):
        return Tensor(devices.native_copy(leaf))
    copy = Tensor(devices.native_copy(leaf._array), leaf.requires_grad)
    copy._grad = leaf._grad
    return copy


def _name_of(function: Any) -> str:
    code = getattr(inspect.unwrap(function), "__code__", None) if callable(function) else None
    name = getattr(function, "__qualname__", type(function).__name__)
    if code is None:
        return name
    return f"{name} ({os.path.basename(code.co_filename)}, line {code.co_firstlineno})"


def _check_tensor_cores(device: str) -> None:
    capability = devices.compute_capability(device)
    if capability < (8, 0):
        raise DeviceError(
            f"precision='bfloat16' needs a GPU of compute capability 8.0 or higher; {device} has "
            f"{capability[0]}.{capability[1]}: use 'float32'"
        )
