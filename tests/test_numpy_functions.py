"""NumPy's functions on Tensors are ours, on the tape, or are refused: no gradient is lost silently."""

import math

import numpy
import pytest

import minidl as dl
from minidl.errors import RecordingError

X = numpy.array([[0.5, 1.5, -1.0], [2.0, -0.5, 1.0]], "float32")

CALLS = {
    "exp": lambda x: numpy.exp(x),
    "add": lambda x: numpy.add(x, 1),
    "array on the left": lambda x: X * x,
    "array before a comparison": lambda x: numpy.less(X, x),
    "maximum": lambda x: numpy.maximum(x, 0),
    "arctan2": lambda x: numpy.arctan2(x, X),
    "remainder": lambda x: numpy.remainder(x, 0.7),
    "isnan": lambda x: numpy.isnan(x),
    "matmul": lambda x: numpy.matmul(X, x.T),
    "array @ x": lambda x: X @ x.T,
    "sum": lambda x: numpy.sum(x, axis=0),
    "mean": lambda x: numpy.mean(x),
    "std": lambda x: numpy.std(x, axis=1, ddof=1, keepdims=True),
    "argmax": lambda x: numpy.argmax(x, axis=1),
    "all": lambda x: numpy.all(x, axis=0),
    "prod": lambda x: numpy.prod(x),
    "cumsum": lambda x: numpy.cumsum(x, axis=1),
    "clip": lambda x: numpy.clip(x, 0, 1),
    "clip at one side": lambda x: numpy.clip(x, None, 1.0),
    "where": lambda x: numpy.where(X > 0, x, 0),
    "concatenate": lambda x: numpy.concatenate([x, x], axis=1),
    "stack": lambda x: numpy.stack([x, X]),
    "vstack": lambda x: numpy.vstack([x, X]),
    "split": lambda x: numpy.split(x, 3, axis=1)[1],
    "transpose": lambda x: numpy.transpose(x),
    "reshape": lambda x: numpy.reshape(x, (3, 2)),
    "expand_dims": lambda x: numpy.expand_dims(x, 0),
    "moveaxis": lambda x: numpy.moveaxis(x, 0, 1),
    "tile": lambda x: numpy.tile(x, 2),
    "repeat": lambda x: numpy.repeat(x, 2, axis=0),
    "roll": lambda x: numpy.roll(x, 1),
    "pad": lambda x: numpy.pad(x, 1, "reflect"),
    "take": lambda x: numpy.take(x, [0, 2], axis=1),
    "sort": lambda x: numpy.sort(x, axis=0),
    "dot": lambda x: numpy.dot(x, X.T),
    "outer": lambda x: numpy.outer(x, X),
    "einsum": lambda x: numpy.einsum("ij,kj->ik", x, X),
    "tensordot": lambda x: numpy.tensordot(x, X, ((1,), (1,))),
    "norm": lambda x: numpy.linalg.norm(x),
    "trace": lambda x: numpy.trace(x),
    "nan_to_num": lambda x: numpy.nan_to_num(x),
    "zeros_like": lambda x: numpy.zeros_like(x),
    "logaddexp": lambda x: numpy.logaddexp(x, X),
    "amax": lambda x: numpy.amax(x, axis=0),
    "round": lambda x: numpy.round(x, 1),
    "copy": lambda x: numpy.copy(x),
    "clip by NumPy's older names": lambda x: numpy.clip(x, a_min=0, a_max=1),
    "transpose by name": lambda x: numpy.transpose(x, axes=(1, 0)),
    "reshape to one axis": lambda x: numpy.reshape(x, -1),
    "std by the newer name": lambda x: numpy.std(x, axis=1, correction=1),
    "full_like by name": lambda x: numpy.full_like(x, fill_value=x.ravel()[1]),
    "linspace": lambda x: numpy.linspace(x.ravel()[0], x.ravel()[1], 5),
    "vstack with casting": lambda x: numpy.vstack([x, X], casting="same_kind"),
    "sort by kind": lambda x: numpy.sort(x, axis=0, kind="stable"),
    "einsum by numbers": lambda x: numpy.einsum(x, [0, 1], X, [2, 1], optimize=True),
}


@pytest.mark.parametrize("name", CALLS)
def test_functions_of_numpy_give_tensors_on_the_tape(name):
    call = CALLS[name]
    x = dl.tensor(X, requires_grad=True)
    result, expected = call(x), numpy.asarray(call(X))
    assert isinstance(result, dl.Tensor)
    numpy.testing.assert_allclose(result.numpy(), expected, rtol=2e-6)
    if expected.dtype.kind == "f" and name not in ("zeros_like", "round"):
        assert result.requires_grad


def test_in_numpys_linalg_too():
    a = dl.tensor([[2.0, 0.0], [0.0, 4.0]], requires_grad=True)
    assert numpy.linalg.inv(a).numpy().tolist() == [[0.5, 0], [0, 0.25]]
    assert numpy.linalg.solve(a, dl.ones(2)).requires_grad
    assert numpy.linalg.slogdet(a)[1].requires_grad


def test_questions_about_shapes_are_answered():
    x = dl.tensor(X)
    assert (numpy.shape(x), numpy.ndim(x), numpy.size(x), numpy.size(x, 1)) == ((2, 3), 2, 6, 3)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x: numpy.median(x), "numpy.median has no counterpart in minidl"),
        (lambda x: numpy.linalg.svd(x), "svd has no counterpart"),
        (lambda x: numpy.heaviside(x, 0), "heaviside has no counterpart"),
        (lambda x: numpy.add.reduce(x), "numpy.add.reduce has no counterpart"),
        (lambda x: numpy.stack([x, x], out=numpy.zeros((2, 2, 3), "float32")), "takes no out="),
        (lambda x: numpy.exp(x, out=numpy.zeros((2, 3), "float32")), "numpy.exp with out= has no"),
        (lambda x: numpy.exp(X, out=x), "cannot write to a Tensor"),
        (lambda x: numpy.sum(x, where=X > 0), "takes no where="),
        (lambda x: numpy.sum(x, initial=1.0), "numpy.sum of a Tensor is that of minidl: .*initial"),
        (lambda x: numpy.add(X, x, out=X), "would lose the gradient"),
    ],
)
def test_what_is_not_ours_is_refused(call, message):
    with pytest.raises(TypeError, match=message):
        call(dl.tensor(X, requires_grad=True))


def test_where_no_gradient_is_asked_for_numpy_computes_what_we_lack():
    x = dl.tensor(X)
    assert numpy.median(x) == numpy.median(X)
    assert numpy.allclose(x, X)
    assert numpy.unique(x).tolist() == sorted(X.ravel())
    assert numpy.add.reduce(x, axis=0).tolist() == X.sum(axis=0).tolist()
    total = numpy.zeros((2, 3), "float32")
    total += x
    numpy.testing.assert_array_equal(total, X)
    with pytest.raises(RecordingError, match="reads the value of a Tensor"):
        dl.compile(lambda x: x * float(numpy.median(x)))(x)


def test_limits_may_be_tensors():
    assert numpy.linspace(dl.tensor(0.0), dl.tensor(1.0), 3).numpy().tolist() == [0, 0.5, 1]
    assert numpy.full_like(X, 2.0).tolist() == dl.full((2, 3), dl.tensor(2.0)).tolist()


def test_they_are_recorded():
    step = dl.compile(lambda x: numpy.sum(numpy.exp(x)))
    for scale in (1.0, 2.0):
        x = dl.tensor(scale * X)
        assert step(x).item() == pytest.approx(numpy.exp(scale * X).sum(), rel=1e-6)


def test_an_array_is_what_asarray_gives():
    x = dl.tensor(X)
    numpy.testing.assert_array_equal(numpy.asarray(x), X)
    assert numpy.asarray(x, "float64").dtype == numpy.float64


#: Where NumPy, or what stands on it, makes an array of a Tensor before it asks whose function is meant.
CONVERSIONS = {
    "asarray": lambda x: numpy.asarray(x),
    "asarray in another dtype": lambda x: numpy.asarray(x, "float64"),
    "array of several": lambda x: numpy.array([x, x]),
    "array of objects": lambda x: numpy.array([x, x], object),
    "a number beside numbers": lambda x: numpy.array([1.0, x[0, 0]]),
    "mean of several": lambda x: numpy.mean([x, x]),
    "max of several": lambda x: numpy.max([x, x], axis=0),
    "exp of several": lambda x: numpy.exp([x, x]),
    "where among several": lambda x: numpy.where(X > 0, [x, x], 0),
    "limits in a list": lambda x: numpy.linspace(0, [x[0, 0], x[0, 1]]),
    "r_": lambda x: numpy.r_[x],
    "c_": lambda x: numpy.c_[x],
    "a scalar type": lambda x: numpy.float32(x[0, 0]),
    "bool_": lambda x: numpy.bool_(x[0, 0]),
    "full": lambda x: numpy.full((2, 3), x),
    "vectorize": lambda x: numpy.vectorize(abs)(x),
    "a masked array": lambda x: numpy.ma.array(x),
    "writing into an array": lambda x: numpy.zeros((2, 3)).__setitem__(slice(None), x),
    "a method of an array": lambda x: numpy.eye(2).dot(x),
    "an array @ a list": lambda x: numpy.eye(2) @ [x[0], x[1]],
    "random numbers around it": lambda x: numpy.random.default_rng(0).normal(x),
    "searchsorted": lambda x: numpy.arange(3.0).searchsorted(x),
    "numpy.testing": lambda x: numpy.testing.assert_allclose(x, X),
}


@pytest.mark.parametrize("name", CONVERSIONS)
@pytest.mark.parametrize("made", [False, True], ids=["leaf", "made by an operation"])
def test_an_array_that_would_lose_a_gradient_is_refused(name, made):
    x = dl.Parameter(X)
    x = x * 1 if made else x
    with pytest.raises(TypeError, match=r"use \.numpy\(\) or \.detach\(\), .* dl\.stack\(\[\.\.\.\]\)"):
        CONVERSIONS[name](x)
    CONVERSIONS[name](x.detach())
    with dl.no_grad():
        CONVERSIONS[name](x)


def test_values_that_are_asked_for_by_name_are_given():
    x = dl.Parameter(X)
    numpy.testing.assert_array_equal(x.numpy(), X)
    assert x.tolist() == X.tolist()
    first = x[0, 0]
    assert (float(first), first.item(), math.sqrt(first), f"{first:.1f}") == (0.5, 0.5, math.sqrt(0.5), "0.5")


def test_without_a_tape_numpy_computes_what_we_lack():
    x = dl.Parameter(X)
    with dl.no_grad():
        assert numpy.median(x) == numpy.median(X)
        assert numpy.add.reduce(x, axis=0).tolist() == X.sum(axis=0).tolist()


@pytest.mark.parametrize("kernels", ["numpy", "c"])
def test_a_compiled_function_refuses_it_as_the_plain_one_does(kernels):
    x = dl.Parameter(X)
    step = dl.compile(lambda: dl.tensor(numpy.mean([x, x])), kernels=kernels)
    with pytest.raises(TypeError, match="an array would lose the gradient"):
        step()
    frozen = dl.compile(lambda x: dl.tensor(numpy.mean([x, x])), kernels=kernels)
    with pytest.raises(RecordingError, match="reads the value of a Tensor"):
        frozen(dl.tensor(X))
