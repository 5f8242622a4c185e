"""What holds compiled functions against plain ones: the same script runs in two worlds, and all is compared.

A case is a function of a `World`. It makes its own objects, has functions compiled by `World.compile`, calls
them and changes things in between. In the plain world, `World.compile` leaves functions as they are.
"""

import functools
import types
import warnings

import numpy

import minidl as dl
from minidl.errors import RecordingError
from minidl.mode import mode

_MUST_BE_SEEN = ("has been recorded", "changes Python's state")


class World:
    """Where a case runs: plain, or compiled with options."""

    def __init__(self, options=None):
        self.options = options
        self.log = []
        self.watched = []
        self.compiled = []

    def watch(self, *objects):
        """Compare objects after each call as well. Returns the first of them."""
        self.watched += objects
        return objects[0]

    def note(self, *things):
        """Compare things as they are now."""
        self.log.append(description(things))

    def compile(self, function):
        """Return a function that notes its results, and the state after each call."""
        target = function
        if self.options is not None:
            target = dl.compile(function, **self.options)
            self.compiled.append(target)

        @functools.wraps(function)
        def call(*arguments, **keywords):
            before = description(self.watched)
            try:
                result = target(*arguments, **keywords)
            except Exception as error:
                if self.options is not None:  # a plain function may stop half-way
                    assert mode.recorder is None
                    assert_same(description(self.watched), before, "the state after an exception")
                if isinstance(error, RecordingError):
                    raise
                self.log.append(type(error).__name__)
                raise
            self.log.append(description((result, self.watched)))
            return result

        call.target = target
        return call

    def programs(self):
        """Return how many programs there are."""
        return sum(len(function.programs) for function in self.compiled)


def run(case, options=None):
    """Run a case in a new world; return the world and the error that refused it, if one did."""
    world = World(options)
    refusal = None
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            case(world)
        except RecordingError as error:
            refusal = error
    for warning in caught:
        assert any(text in str(warning.message) for text in _MUST_BE_SEEN), warning.message
    return world, refusal


def assert_lawful(case, options):
    """Run a case plain and compiled, and compare what the two did up to a refusal.

    Returns
    -------
    The compiled world, and the error that refused the case, or None.
    """
    plain, refusal = run(case)
    assert refusal is None, "a plain function was refused"
    compiled, refusal = run(case, options)
    if refusal is None:
        assert len(compiled.log) == len(plain.log)
    for i, (ours, theirs) in enumerate(zip(compiled.log, plain.log, strict=False)):
        assert_same(ours, theirs, f"entry {i}")
    return compiled, refusal


def description(x, seen=None):
    """Return what x holds, as a nest of tuples, dicts and arrays that later changes do not reach."""
    seen = {} if seen is None else seen
    if type(x) is float:
        return numpy.array(x)
    if isinstance(
        x, (type(None), bool, int, float, str, bytes, slice, numpy.generic, type, types.ModuleType)
    ):
        return f"{type(x).__name__} {x!r}"
    if isinstance(x, types.FunctionType):
        return f"function {x.__name__}"
    inner = lambda value: description(value, seen)
    if isinstance(x, numpy.ndarray):
        return x.copy()
    if id(x) in seen:
        return f"object {seen[id(x)]}"
    if not isinstance(x, dl.Tensor):
        seen[id(x)] = len(seen)
    else:
        is_leaf = x.primitive is None
        rest = (x.requires_grad, x.learning_rate_factor, x.l2_factor) if isinstance(x, dl.Parameter) else ()
        return ("Tensor", numpy.array(x.numpy()), is_leaf and x.requires_grad, inner(x.grad), *map(str, rest))
    if isinstance(x, dl.Generator):
        return str(x.state_dict())
    if isinstance(x, dict):
        return {f"{key}": inner(value) for key, value in x.items()}
    if isinstance(x, (list, tuple)):
        return (type(x).__name__, *map(inner, x))
    if isinstance(x, (set, frozenset)):
        return sorted(map(repr, x))
    if hasattr(x, "__dict__"):
        return {"class": type(x).__name__, **{name: inner(value) for name, value in vars(x).items()}}
    return type(x).__name__


def assert_same(ours, theirs, where):
    """Fail where two descriptions differ by more than the rounding of float32."""
    assert type(ours) is type(theirs), f"{where}: {ours} is not {theirs}"
    if isinstance(ours, dict):
        assert ours.keys() == theirs.keys(), f"{where}: {list(ours)} are not {list(theirs)}"
        for key in ours:
            assert_same(ours[key], theirs[key], f"{where}, {key}")
    elif isinstance(ours, (tuple, list)):
        assert len(ours) == len(theirs), f"{where}: {ours} is not {theirs}"
        for i, (one, other) in enumerate(zip(ours, theirs, strict=True)):
            assert_same(one, other, f"{where}, {i}")
    elif isinstance(ours, numpy.ndarray):
        assert ours.dtype == theirs.dtype, f"{where}: {ours.dtype} is not {theirs.dtype}"
        assert ours.shape == theirs.shape, f"{where}: {ours.shape} is not {theirs.shape}"
        exact = ours.dtype.kind != "f"
        numpy.testing.assert_allclose(ours, theirs, 0 if exact else 1e-5, 0 if exact else 1e-6, err_msg=where)
        zeros = theirs == 0
        assert (numpy.signbit(ours[zeros] * 1.0) == numpy.signbit(theirs[zeros] * 1.0)).all(), (
            f"{where}: sign"
        )
    else:
        assert ours == theirs, f"{where}: {ours} is not {theirs}"
