from functools import partial

import numpy
import pytest
import scipy.special
from hypothesis import given
from hypothesis.extra import numpy as arrays

import minidl as dl
from minidl.checks import check_gradients

REDUCTIONS = {
    "mean": numpy.mean,
    "sum": numpy.sum,
    "batchmean": lambda losses: losses.sum() / len(losses),
    "none": lambda losses: losses,
}


def reals(rng, shape):
    """Return predictions and targets that differ, by amounts away from 0 and 1 (kinks of some losses)."""
    target = rng.normal(size=shape)
    distance = rng.choice([0.2, 0.7, 1.5, 3.0], size=shape) + rng.uniform(0, 0.1, size=shape)
    return target + rng.choice([-1, 1], size=shape) * distance, target


def probabilities(rng, shape):
    return rng.uniform(0.05, 0.95, size=shape), rng.uniform(0.05, 0.95, size=shape)


def logits(rng, shape):
    return rng.normal(scale=3, size=shape), rng.uniform(size=shape)


def distributions(rng, shape):
    return rng.normal(scale=3, size=shape), scipy.special.softmax(rng.normal(size=shape), axis=-1)


def binary_cross_entropy(p, t):
    return -scipy.special.xlogy(t, p) - scipy.special.xlog1py(1 - t, -p)


def sigmoid_cross_entropy(z, t):
    return -t * scipy.special.log_expit(z) - (1 - t) * scipy.special.log_expit(-z)


# name: (the loss, the loss of each element in NumPy and SciPy, how to draw predictions and targets)
LOSSES = {
    "binary_cross_entropy": (dl.binary_cross_entropy, binary_cross_entropy, probabilities),
    "with_logits": (dl.binary_cross_entropy_with_logits, sigmoid_cross_entropy, logits),
    "mean_squared_error": (dl.mean_squared_error, lambda p, t: (p - t) ** 2, reals),
    "mean_absolute_error": (dl.mean_absolute_error, lambda p, t: abs(p - t), reals),
    "huber": (dl.huber, lambda p, t: scipy.special.huber(1, p - t), reals),
    "huber_0.5": (
        partial(dl.huber, delta=0.5),
        lambda p, t: scipy.special.huber(0.5, p - t),
        reals,
    ),
    "softmax_cross_entropy": (
        dl.softmax_cross_entropy,
        lambda z, t: -(t * scipy.special.log_softmax(z, axis=-1)).sum(axis=-1),
        distributions,
    ),
}
WEIGHTED = LOSSES | {
    "kl_divergence": (
        dl.kl_divergence,
        lambda p, t: scipy.special.rel_entr(t, numpy.exp(p)).sum(axis=-1),
        lambda rng, shape: (
            scipy.special.log_softmax(rng.normal(size=shape), axis=-1),
            scipy.special.softmax(rng.normal(size=shape), axis=-1),
        ),
    ),
    "cosine_distance": (
        dl.cosine_distance,
        lambda p, t: 1 - (p * t).sum(-1) / numpy.linalg.norm(p, axis=-1) / numpy.linalg.norm(t, axis=-1),
        reals,
    ),
    "hinge": (
        dl.hinge,
        lambda p, t: numpy.maximum(0, 1 - t * p),
        lambda rng, shape: (rng.normal(size=shape), rng.choice([-1.0, 1.0], shape)),
    ),
    "triplet": (
        lambda p, t, **options: dl.triplet(p, t, 1 - t, margin=2, **options),
        lambda p, t: numpy.maximum(
            0, numpy.linalg.norm(p - t, axis=-1) - numpy.linalg.norm(p - 1 + t, axis=-1) + 2
        ),
        reals,
    ),
}
ELEMENTWISE = [name for name in LOSSES if name != "softmax_cross_entropy"]

every_loss = pytest.mark.parametrize("name", LOSSES)
every_reduction = pytest.mark.parametrize("reduction", REDUCTIONS)


# --- all losses -----------------------------------------------------------------------------------


@every_loss
@every_reduction
@given(shape=arrays.array_shapes(min_dims=2, max_dims=4, min_side=1, max_side=4))
def test_values(name, reduction, shape):
    loss, reference, draw = LOSSES[name]
    prediction, target = draw(numpy.random.default_rng(0), shape)
    result = loss(prediction, target, reduction=reduction)
    expected = REDUCTIONS[reduction](reference(prediction, target))
    assert result.dtype == numpy.float64
    numpy.testing.assert_allclose(result.numpy(), expected, rtol=1e-10, atol=1e-14, strict=True)


@every_loss
@every_reduction
def test_gradients(name, reduction, rng):
    loss, _, draw = LOSSES[name]
    check_gradients(partial(loss, reduction=reduction), *draw(rng, (2, 3)), order=2)


@every_loss
def test_float32_stays_float32_and_agrees(name, rng):
    loss, reference, draw = LOSSES[name]
    prediction, target = (x.astype("float32") for x in draw(rng, (5, 4)))
    result = loss(prediction, target)
    assert result.dtype == numpy.float32
    assert result.shape == ()
    assert result.item() == pytest.approx(reference(prediction, target).mean(), rel=1e-5)


@every_loss
def test_the_mean_is_the_default(name, rng):
    loss, _, draw = LOSSES[name]
    prediction, target = draw(rng, (5, 4))
    assert loss(prediction, target).item() == loss(prediction, target, reduction="mean").item()


@pytest.mark.parametrize("name", ELEMENTWISE)
def test_a_batch_of_single_values(name, rng):
    loss, reference, draw = LOSSES[name]
    prediction, target = draw(rng, (6,))
    expected = reference(prediction, target)
    numpy.testing.assert_allclose(loss(prediction, target, reduction="none").numpy(), expected)
    assert loss(prediction, target, reduction="batchmean").item() == pytest.approx(expected.mean())


@every_loss
def test_arrays_that_are_not_contiguous(name, rng):
    loss, _, draw = LOSSES[name]
    prediction, target = draw(rng, (6, 8))
    by_columns = [numpy.asfortranarray(array)[::2] for array in (prediction, target)]
    strided = loss(*by_columns, reduction="none")
    copied = loss(*map(numpy.ascontiguousarray, by_columns), reduction="none")
    numpy.testing.assert_allclose(strided.numpy(), copied.numpy(), rtol=1e-14)


@every_loss
@pytest.mark.parametrize("reduction", ["average", "", None])
def test_an_unknown_reduction_is_refused(name, reduction, rng):
    loss, _, draw = LOSSES[name]
    with pytest.raises(ValueError, match=f"unknown reduction {reduction!r}: use one of mean, sum, batchmean"):
        loss(*draw(rng, (5, 4)), reduction=reduction)


@every_loss
@every_reduction
@pytest.mark.parametrize("shape", [(0, 3), (2, 0)])
def test_an_empty_batch_is_refused(name, reduction, shape):
    with pytest.raises(ValueError, match="the batch is empty"):
        LOSSES[name][0](numpy.zeros(shape), numpy.zeros(shape), reduction=reduction)


@every_loss
def test_nan_in_a_prediction_is_not_hidden(name, rng):
    loss, _, draw = LOSSES[name]
    prediction, target = draw(rng, (2, 3))
    prediction[0, 0] = numpy.nan
    assert numpy.isnan(loss(prediction, target).item())


@pytest.mark.parametrize("name", ELEMENTWISE)
@pytest.mark.parametrize(
    ("prediction", "target", "hint"),
    [
        ((4, 1), (4,), r": reshape one of them, for example the target with \.reshape\(4, 1\)$"),
        ((4, 28, 28, 1), (4, 784), r"\.reshape\(4, 28, 28, 1\)$"),
        ((4,), (4, 1), r"\.reshape\(4,\)$"),
        ((4, 2), (4, 3), r"has shape \(4, 2\), the target \(4, 3\)$"),
        ((4, 3), (3, 4), r"has shape \(4, 3\), the target \(3, 4\)$"),
        ((4, 3), (3,), r"has shape \(4, 3\), the target \(3,\)$"),
        ((4, 3), (), r"has shape \(4, 3\), the target \(\)$"),
    ],
)
def test_shapes_are_never_broadcast(name, prediction, target, hint):
    with pytest.raises(ValueError, match=hint):
        LOSSES[name][0](numpy.full(prediction, 0.5), numpy.full(target, 0.5))


@every_reduction
@pytest.mark.parametrize("name", ELEMENTWISE)
def test_a_single_number_has_no_batch(name, reduction):
    loss, reference, _ = LOSSES[name]
    if reduction == "batchmean":
        with pytest.raises(ValueError, match="batchmean"):
            loss(dl.tensor(0.25), dl.tensor(0.75), reduction=reduction)
    else:
        result = loss(dl.tensor(0.25), dl.tensor(0.75), reduction=reduction)
        assert result.item() == pytest.approx(float(reference(0.25, 0.75)), rel=1e-6)


@pytest.mark.parametrize("name", ["mean_squared_error", "mean_absolute_error", "huber"])
@pytest.mark.parametrize("dtype", ["uint8", "int64", "bool"])
def test_integers_and_bools_are_compared_as_numbers(name, dtype):
    loss, reference, _ = LOSSES[name]
    prediction, target = numpy.array([0, 1, 1], dtype), numpy.array([1, 0, 1], dtype)
    expected = reference(prediction.astype(float), target.astype(float)).mean()
    assert loss(prediction, target).item() == pytest.approx(expected)
    assert loss(prediction.astype("float32"), target).item() == pytest.approx(expected)


# --- binary cross-entropy -------------------------------------------------------------------------

LOGITS = numpy.array([-1000.0, -100.0, -30.0, -1.0, 0.0, 2.0, 30.0, 100.0, 1000.0])
PATHS = {  # from logits of shape (n,) to probabilities of shape (n,), by views of the sigmoid's output
    "directly": dl.sigmoid,
    "reshape": lambda z: dl.sigmoid(z.reshape(3, 3)).reshape(-1),
    "layers": dl.Network([dl.Sigmoid(), dl.Reshape(1, 1), dl.Flatten(), lambda y: y[:, 0]]),
    "transpose": lambda z: dl.sigmoid(z.reshape(3, 3).T).T.reshape(9),
    "slice": lambda z: dl.sigmoid(dl.concatenate([z, z]))[:9],
    "reversed twice": lambda z: dl.sigmoid(z)[::-1][::-1],
}


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("target", [0.0, 1.0, 0.25])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_exact_behind_a_sigmoid_at_any_logit(path, target, dtype):
    z = dl.tensor(LOGITS, dtype, requires_grad=True)
    targets = numpy.full(9, target, dtype)
    prediction = PATHS[path](z)
    loss = dl.binary_cross_entropy(prediction, targets, reduction="none")
    tolerance = 1e-6 if dtype == "float32" else 1e-13
    tiny = 1.5e-45 if dtype == "float32" else 0  # about the smallest float32 above 0
    expected = sigmoid_cross_entropy(LOGITS, targets)
    numpy.testing.assert_allclose(loss.numpy(), expected, rtol=tolerance, atol=tiny)
    loss.sum().backward()
    slope = scipy.special.expit(LOGITS) - target
    numpy.testing.assert_allclose(z.grad.numpy(), slope, rtol=tolerance, atol=tolerance / 10)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("target", [0.0, 1.0, 0.25])
def test_exact_behind_a_sigmoid_without_a_tape(path, target):
    with dl.no_grad():
        prediction = PATHS[path](dl.tensor(LOGITS))
        loss = dl.binary_cross_entropy(prediction, numpy.full(9, target), reduction="none")
    expected = sigmoid_cross_entropy(LOGITS, target)
    numpy.testing.assert_allclose(loss.numpy(), expected, rtol=1e-13)


def test_exact_after_backward_has_freed_the_tape():
    z, target = dl.tensor(LOGITS, requires_grad=True), numpy.zeros(9)
    prediction = dl.sigmoid(z * 1)
    first = dl.binary_cross_entropy(prediction, target)
    first.backward()
    assert dl.binary_cross_entropy(prediction, target).item() == first.item()


def test_agrees_with_the_loss_of_logits(rng):
    z, t = rng.normal(scale=50, size=40).astype("float32"), rng.uniform(size=40).astype("float32")
    numpy.testing.assert_array_equal(
        dl.binary_cross_entropy(dl.sigmoid(dl.tensor(z)), t, reduction="none").numpy(),
        dl.binary_cross_entropy_with_logits(z, t, reduction="none").numpy(),
    )


def test_gradients_behind_a_sigmoid(rng):
    z, t = rng.normal(size=(2, 3)), rng.uniform(size=(2, 3))
    check_gradients(lambda z, t: dl.binary_cross_entropy(dl.sigmoid(z), t), z, t, order=2)


def test_a_prediction_keeps_its_values_when_a_parameter_changes():
    z = dl.Parameter([0.0])
    with dl.no_grad():
        prediction = dl.sigmoid(z)
    z.assign([5.0])
    assert dl.binary_cross_entropy(prediction, [1.0]).item() == pytest.approx(numpy.log(2))


def test_certain_and_right_costs_nothing():
    p = dl.tensor([0.0, 1.0], requires_grad=True)
    loss = dl.binary_cross_entropy(p, [0, 1], reduction="sum")
    assert loss.item() == 0
    loss.backward()
    assert p.grad.tolist() == [1, -1]


@pytest.mark.parametrize(("p", "t"), [(0.0, 1.0), (1.0, 0.0), (0.0, 0.5), (1.0, 0.5)])
def test_certain_and_wrong_costs_infinity(p, t):
    prediction = dl.tensor([p, 0.5], requires_grad=True)
    with pytest.warns(RuntimeWarning, match="divide by zero"):
        loss = dl.binary_cross_entropy(prediction, [t, 0.5])
    assert loss.item() == numpy.inf
    with pytest.warns(RuntimeWarning, match="divide by zero"):
        loss.backward()
    assert abs(prediction.grad.numpy()[0]) == numpy.inf
    assert numpy.sign(prediction.grad.numpy()[0]) == numpy.sign(p - t)
    assert prediction.grad.numpy()[1] == 0


BINARY = pytest.mark.parametrize("loss", [dl.binary_cross_entropy, dl.binary_cross_entropy_with_logits])


@BINARY
@pytest.mark.parametrize(
    "target", [numpy.array([0, 255], "uint8"), numpy.array([-1, 1]), [0.5, 1.001], [-1e-9, 0], [2, 1]]
)
def test_targets_outside_the_unit_interval_are_refused(loss, target):
    with pytest.raises(ValueError, match=rf"{loss.__name__}: targets must be in \[0, 1\], got values from"):
        loss(dl.tensor([0.5, 0.5]), target)


@BINARY
@pytest.mark.parametrize("target", [[0.5, float("nan")], [float("nan")] * 2, [float("inf"), 0.0]])
def test_targets_that_are_not_finite_are_refused(loss, target):
    with pytest.raises(ValueError, match=rf"{loss.__name__}: targets must be in \[0, 1\].* (nan|inf)"):
        loss(dl.tensor([0.5, 0.5]), target)


@BINARY
@pytest.mark.parametrize("dtype", ["uint8", "int64", "bool", "float32"])
def test_targets_of_0_and_1_have_any_dtype(loss, dtype):
    prediction = dl.tensor([0.25, 0.75])
    result = loss(prediction, numpy.array([0, 1], dtype))
    assert result.dtype == numpy.float32
    assert result.item() == pytest.approx(loss(prediction, [0.0, 1.0]).item())


# --- huber ----------------------------------------------------------------------------------------


def test_huber_is_a_parabola_inside_and_a_line_outside():
    difference = numpy.array([-3, -2, -1, 0, 1, 2, 3.0])
    loss = dl.huber(difference, numpy.zeros(7), delta=2, reduction="none")
    numpy.testing.assert_allclose(loss.numpy(), [4, 2, 0.5, 0, 0.5, 2, 4])
    x = dl.tensor(difference, requires_grad=True)
    dl.huber(x, numpy.zeros(7), delta=2, reduction="sum").backward()
    numpy.testing.assert_allclose(x.grad.numpy(), [-2, -2, -1, 0, 1, 2, 2])


@pytest.mark.parametrize("delta", [0, -1, float("nan")])
def test_huber_needs_a_positive_delta(delta):
    with pytest.raises(ValueError, match=f"huber: delta must be positive, got {delta}"):
        dl.huber([1.0], [2.0], delta=delta)


def test_the_absolute_error_has_no_slope_where_it_is_0():
    x = dl.tensor([1.0, 2.0], requires_grad=True)
    dl.mean_absolute_error(x, [1.0, 1.0], reduction="sum").backward()
    assert x.grad.tolist() == [0, 1]


# --- softmax cross-entropy ------------------------------------------------------------------------


@every_reduction
@pytest.mark.parametrize("shape", [(5, 4), (2, 3, 4), (1, 1)])
@pytest.mark.parametrize("dtype", ["int64", "uint8", "int32"])
def test_class_numbers(reduction, shape, dtype, rng):
    z = rng.normal(scale=3, size=shape)
    classes = rng.integers(0, shape[-1], shape[:-1]).astype(dtype)
    picked = numpy.take_along_axis(scipy.special.log_softmax(z, axis=-1), classes[..., None].astype(int), -1)
    result = dl.softmax_cross_entropy(z, classes, reduction=reduction)
    expected = REDUCTIONS[reduction](-picked[..., 0])
    numpy.testing.assert_allclose(result.numpy(), expected, rtol=1e-10, atol=1e-14)


def test_class_numbers_are_one_hot_probabilities(rng):
    z, classes = rng.normal(size=(6, 3)), rng.integers(0, 3, 6)
    for one_hot in (numpy.eye(3)[classes], numpy.eye(3, dtype=int)[classes]):
        numpy.testing.assert_allclose(
            dl.softmax_cross_entropy(z, one_hot, reduction="none").numpy(),
            dl.softmax_cross_entropy(z, classes, reduction="none").numpy(),
        )


@every_reduction
def test_gradients_with_class_numbers(reduction, rng):
    classes = numpy.array([2, 0, 2])
    check_gradients(
        lambda z: dl.softmax_cross_entropy(z, classes, reduction=reduction), rng.normal(size=(3, 4)), order=2
    )


def test_the_gradient_is_softmax_minus_target(rng):
    z = dl.tensor(rng.normal(size=(6, 3)), requires_grad=True)
    classes = rng.integers(0, 3, 6)
    dl.softmax_cross_entropy(z, classes, reduction="sum").backward()
    expected = scipy.special.softmax(z.numpy(), axis=-1) - numpy.eye(3)[classes]
    numpy.testing.assert_allclose(z.grad.numpy(), expected, rtol=1e-10, atol=1e-14)


def test_one_observation_without_a_batch_axis():
    loss = dl.softmax_cross_entropy([1.0, 2.0], 1)
    assert loss.item() == pytest.approx(numpy.log1p(numpy.exp(-1)))


def test_large_logits_are_exact():
    z = dl.tensor([[1000.0, 0.0], [-1000.0, 0.0], [0.0, -1e30]], requires_grad=True)
    loss = dl.softmax_cross_entropy(z, [1, 1, 0], reduction="none")
    assert loss.tolist() == [1000, 0, 0]
    loss.sum().backward()
    assert z.grad.tolist() == [[1, -1], [0, 0], [0, 0]]


def test_a_class_ruled_out_by_a_logit_of_minus_infinity():
    z = dl.tensor([[0.0, 0.0, -numpy.inf]], requires_grad=True)
    loss = dl.softmax_cross_entropy(z, [1])
    assert loss.item() == pytest.approx(numpy.log(2))
    loss.backward()
    numpy.testing.assert_allclose(z.grad.numpy(), [[0.5, -0.5, 0]])


@pytest.mark.parametrize("classes", [[0, 3], [-1, 0], [100, 200]])
def test_classes_that_do_not_exist_are_refused(classes):
    message = r"softmax_cross_entropy: class numbers must be in \[0, 2\], got values from"
    with pytest.raises(ValueError, match=message):
        dl.softmax_cross_entropy(numpy.zeros((2, 3)), classes)


@pytest.mark.parametrize(
    "target",
    [
        numpy.zeros(2),
        numpy.zeros(3, int),
        numpy.zeros((2, 1), int),
        numpy.zeros((3, 2)),
        numpy.zeros(2, bool),
    ],
    ids=lambda target: f"{target.dtype}{target.shape}",
)
def test_a_target_that_does_not_fit_is_refused(target):
    with pytest.raises(ValueError, match=r"class numbers \(integers\) of shape \(2,\)") as refusal:
        dl.softmax_cross_entropy(numpy.zeros((2, 3)), target)
    assert f"got {target.dtype} {target.shape}" in str(refusal.value)
    assert "probabilities of shape (2, 3)" in str(refusal.value)


def test_a_forgotten_sigmoid_is_noticed():
    with pytest.raises(ValueError, match=r"predictions must be in \[0, 1\], got values from -1.0 to 3.0"):
        dl.binary_cross_entropy(dl.tensor([3.0, -1.0]), dl.tensor([1.0, 0.0]))


@pytest.mark.parametrize("loss", [dl.binary_cross_entropy, dl.mean_squared_error, dl.huber])
def test_a_float64_target_does_not_change_the_dtype_of_the_loss(loss):
    assert loss(dl.tensor([0.5]), numpy.array([1.0])).dtype == numpy.float32


# --- at the edges ---------------------------------------------------------------------------------


def cross_entropy_in_float64(logits, target):
    z = logits.astype("float64")
    z -= z.max(axis=1, keepdims=True)
    return numpy.log(numpy.exp(z).sum(axis=1)) - z[numpy.arange(len(z)), target]


@pytest.mark.parametrize("compiled", [False, True])
def test_softmax_cross_entropy_is_exact_far_from_0(compiled, rng):
    loss = dl.compile(lambda z, t: dl.softmax_cross_entropy(z, t)) if compiled else dl.softmax_cross_entropy
    huge = dl.tensor([[1e6 + 2, 1e6 - 1]], dtype="float32")
    assert loss(huge, numpy.array([0])).item() == pytest.approx(numpy.log1p(numpy.exp(-3)), rel=1e-6)
    logits, target = rng.normal(size=(200, 10), scale=1000).astype("float32"), rng.integers(10, size=200)
    expected = cross_entropy_in_float64(logits, target).mean()
    assert loss(dl.tensor(logits), target).item() == pytest.approx(expected, rel=3e-7)


def test_softmax_cross_entropy_of_equal_huge_logits():
    z = dl.tensor([[1e20, 1e20]], requires_grad=True)
    for target in (numpy.array([1]), numpy.array([[0.0, 1.0]])):
        loss = dl.softmax_cross_entropy(z, target)
        assert loss.item() == pytest.approx(numpy.log(2))
        numpy.testing.assert_allclose(dl.grad(loss, z).numpy(), [[0.5, -0.5]], rtol=1e-6)


def test_a_class_without_probability_costs_nothing():
    z = dl.tensor([[0.0, 0.0, -numpy.inf]], requires_grad=True)
    loss = dl.softmax_cross_entropy(z, numpy.array([[0.5, 0.5, 0.0]]))
    assert loss.item() == pytest.approx(numpy.log(2))
    numpy.testing.assert_array_equal(dl.grad(loss, z).numpy(), [[0, 0, 0]])


def test_uint8_class_numbers_and_300_classes():
    target = numpy.array([100, 3], "uint8")
    step = dl.compile(lambda z, t: dl.softmax_cross_entropy(z, t))
    assert step(dl.zeros((2, 300)), target).item() == pytest.approx(numpy.log(300))


@pytest.mark.parametrize("target", [[[0.5, 0.4]], [[0.0, 0.0]], [[1.0, 1.0]], [[1.5, -0.5]]])
def test_soft_targets_must_be_probabilities(target):
    with pytest.raises(ValueError, match=r"probabilities must (sum to 1|be in \[0, 1\])"):
        dl.softmax_cross_entropy(dl.zeros((1, 2)), numpy.array(target))


@pytest.mark.parametrize("logit", [numpy.inf, -numpy.inf])
@pytest.mark.parametrize("target", [0.0, 0.25, 1.0])
def test_binary_cross_entropy_of_infinite_logits(logit, target):
    z = dl.tensor([logit], requires_grad=True)
    loss = dl.binary_cross_entropy_with_logits(z, numpy.array([target]))
    agrees = target == (1 if logit > 0 else 0)
    assert loss.item() == (0 if agrees else numpy.inf)
    assert dl.grad(loss, z).item() == (1 if logit > 0 else 0) - target


def test_huber_at_an_infinite_difference():
    p = dl.tensor([numpy.inf, -numpy.inf], requires_grad=True)
    loss = dl.huber(p, numpy.zeros(2), reduction="sum")
    assert loss.item() == numpy.inf
    numpy.testing.assert_array_equal(dl.grad(loss, p).numpy(), [1, -1])


def test_a_sigmoid_is_seen_through_any_number_of_reshapes():
    z = dl.tensor([-200.0, 200.0], requires_grad=True)
    p = dl.sigmoid(z)
    for _ in range(1000):
        p = p.reshape(2, 1).reshape(2)
    assert dl.binary_cross_entropy(p, numpy.array([1.0, 0.0])).item() == 200


# --- weights --------------------------------------------------------------------------------------

every_weighted = pytest.mark.parametrize("name", WEIGHTED)


def reduced(losses, weight, reduction):
    """Return what the description of weights says, in NumPy."""
    weight = numpy.broadcast_to(
        weight.reshape(weight.shape + (1,) * (losses.ndim - weight.ndim)), losses.shape
    )
    if reduction == "mean":
        return numpy.average(losses, weights=weight)
    return REDUCTIONS[reduction](losses * weight)


@every_weighted
@every_reduction
@pytest.mark.parametrize("kernels", [None, "numpy", "c"])
def test_weights(name, reduction, kernels, rng):
    loss, reference, draw = WEIGHTED[name]
    prediction, target = draw(rng, (6, 5, 4))
    losses = reference(prediction, target)
    function = lambda p, t, w: loss(p, t, reduction=reduction, weight=w)
    function = dl.compile(kernels=kernels)(function) if kernels else function
    for shape in ((6,), (6, 5), losses.shape):
        weight = rng.integers(0, 4, shape) * 0.5
        result = function(dl.tensor(prediction), target, weight)
        numpy.testing.assert_allclose(
            result.numpy(), reduced(losses, weight, reduction), rtol=1e-10, atol=1e-14
        )


@every_weighted
def test_gradients_of_weighted_losses(name, rng):
    loss, _, draw = WEIGHTED[name]
    prediction, target = draw(rng, (3, 4))
    check_gradients(lambda p: loss(p, target, weight=numpy.array([0.5, 0, 2])), prediction, order=2)


@every_weighted
def test_what_has_no_weight_does_not_count_whatever_it_is(name, rng):
    loss, _, draw = WEIGHTED[name]
    prediction, target = draw(rng, (3, 4))
    expected = loss(prediction[1:], target[1:]).item()
    prediction[0] = numpy.nan
    x = dl.tensor(prediction, requires_grad=True)
    result = loss(x, target, weight=[0, 1, 1])
    assert result.item() == pytest.approx(expected)
    assert loss(x, target, weight=[0, 0, 0]).item() == 0
    assert numpy.isfinite(dl.grad(result, x).numpy()[1:]).all()


@every_weighted
@pytest.mark.parametrize("compiled", [False, True])
def test_bad_weights_are_refused(name, compiled, rng):
    loss, _, draw = WEIGHTED[name]
    prediction, target = draw(rng, (3, 4))
    function = (
        dl.compile(lambda p, t, w: loss(p, t, weight=w)) if compiled else lambda p, t, w: loss(p, t, weight=w)
    )
    function(prediction, target, numpy.ones(3))
    for bad in (-1.0, numpy.nan, numpy.inf):
        with pytest.raises(ValueError, match=r"weights must be in \[0, 1e\+18\]"):
            function(prediction, target, numpy.array([1, bad, 1]))
    with pytest.raises(ValueError, match=r"weight must have the shape .* or its first axes, .* got \(2,\)"):
        function(prediction, target, numpy.ones(2))


def test_float64_weights_do_not_change_the_dtype():
    assert dl.mean_squared_error(dl.zeros(3), dl.ones(3), weight=numpy.ones(3)).dtype == "float32"


# --- options of softmax_cross_entropy -------------------------------------------------------------


def cross_entropy(z, t, class_weight=None, label_smoothing=0.0, ignore_index=None):
    """Return losses and weights of class numbers, one observation after another."""
    log_p, classes = scipy.special.log_softmax(z, axis=-1), z.shape[-1]
    class_weight = numpy.ones(classes) if class_weight is None else class_weight
    losses, counted = numpy.zeros((2, *t.shape))
    for i, y in numpy.ndenumerate(t):
        if y != ignore_index:
            target = (1 - label_smoothing) * numpy.eye(classes)[y] + label_smoothing / classes
            losses[i] = -(class_weight * target * log_p[i]).sum()
            counted[i] = class_weight[y]
    return losses, counted


OPTIONS = {
    "class_weight": {"class_weight": numpy.array([0.5, 0, 2, 1])},
    "label_smoothing": {"label_smoothing": 0.3},
    "ignore_index": {"ignore_index": -100},
    "a class that is ignored": {"ignore_index": 2},
    "all": {"class_weight": numpy.array([0.5, 3, 2, 1]), "label_smoothing": 0.1, "ignore_index": 0},
}


@pytest.mark.parametrize("name", OPTIONS)
@pytest.mark.parametrize("kernels", [None, "numpy", "c"])
@pytest.mark.parametrize("axis", [-1, 1])
def test_options_of_softmax_cross_entropy(name, kernels, axis, rng):
    options = OPTIONS[name]
    z, t = rng.normal(scale=2, size=(5, 3, 4)), rng.integers(0, 4, (5, 3))
    if options.get("ignore_index") == -100:
        t[rng.random(t.shape) < 0.4] = -100
    losses, counted = cross_entropy(z, t, **options)
    moved = numpy.moveaxis(z, -1, axis)
    for weight in (None, rng.uniform(size=5)):
        w = numpy.ones((5, 1)) if weight is None else weight[:, None]
        for reduction, expected in {
            "none": losses * w,
            "sum": (losses * w).sum(),
            "mean": (losses * w).sum() / (counted * w).sum(),
        }.items():
            loss = partial(dl.softmax_cross_entropy, reduction=reduction, axis=axis, weight=weight, **options)
            compiled = dl.compile(kernels=kernels)(loss) if kernels else loss
            numpy.testing.assert_allclose(compiled(dl.tensor(moved), t).numpy(), expected, rtol=1e-10)
    check_gradients(lambda z: loss(z, t), moved, order=2)


def test_class_numbers_are_one_hot_probabilities_with_all_options(rng):
    z, t = rng.normal(size=(6, 4)), rng.integers(0, 4, 6)
    options = {"class_weight": numpy.array([0.5, 3, 2, 1]), "label_smoothing": 0.1, "weight": numpy.arange(6)}
    numbers = dl.softmax_cross_entropy(z, t, **options).item()
    assert dl.softmax_cross_entropy(z, numpy.eye(4)[t], **options).item() == pytest.approx(numbers)
    turned = dl.softmax_cross_entropy(z.T, numpy.eye(4)[t].T, axis=0, **options).item()
    assert turned == pytest.approx(numbers)


def test_a_batch_of_which_all_is_ignored_costs_nothing():
    z = dl.tensor(numpy.zeros((2, 3)), requires_grad=True)
    loss = dl.softmax_cross_entropy(z, [-1, -1], ignore_index=-1)
    assert loss.item() == 0
    assert not dl.grad(loss, z).numpy().any()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"label_smoothing": 1.5}, "label_smoothing must be between 0 and 1, got 1.5"),
        ({"label_smoothing": -0.1}, "label_smoothing must be between 0 and 1"),
        ({"class_weight": [1, 2]}, r"class_weight must have shape \(3,\), got \(2,\)"),
        ({"class_weight": [1, 2, -1]}, r"class weights must be in \[0, "),
        ({"axis": 2}, "axis 2 does not exist"),
        ({"ignore_index": -1}, r"class numbers must be in \[0, 2\], got values from 0 to 3"),
    ],
)
def test_bad_options_of_softmax_cross_entropy_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        dl.softmax_cross_entropy(
            numpy.zeros((2, 3)), [3, 0] if "ignore_index" in options else [2, 0], **options
        )


def test_ignore_index_is_for_class_numbers():
    with pytest.raises(ValueError, match="ignore_index is for targets that are class numbers"):
        dl.softmax_cross_entropy(numpy.zeros((2, 3)), numpy.eye(3)[:2], ignore_index=0)


@pytest.mark.parametrize("compiled", [False, True])
def test_a_replay_still_refuses_classes_beside_the_ignored_one(compiled):
    loss = partial(dl.softmax_cross_entropy, ignore_index=-1)
    loss = dl.compile(loss) if compiled else loss
    z = dl.zeros((2, 3))
    loss(z, numpy.array([0, -1]))
    with pytest.raises(ValueError, match=r"class numbers must be in \[0, 2\]"):
        loss(z, numpy.array([0, -2]))


# --- distances and margins ------------------------------------------------------------------------


def test_divergence_of_probabilities_of_0():
    log_p = dl.tensor([[-numpy.inf, 0.0]], requires_grad=True)
    loss = dl.kl_divergence(log_p, [[0.0, 1.0]])
    assert loss.item() == 0
    assert dl.grad(loss, log_p).tolist() == [[0, -1]]
    with pytest.raises(ValueError, match="targets must sum to 1"):
        dl.kl_divergence([[0.0, 0.0]], [[0.5, 0.4]])


def test_cosine_distance_of_special_vectors():
    distances = dl.cosine_distance(
        [[1.0, 0], [1, 0], [1, 0], [0, 0]], [[2.0, 0], [-3, 0], [0, 1], [1, 1]], "none"
    )
    numpy.testing.assert_allclose(distances.numpy(), [0, 2, 1, 1], atol=1e-7)
    x = dl.tensor(numpy.zeros((1, 3)), requires_grad=True)
    assert numpy.isfinite(dl.grad(dl.cosine_distance(x, dl.ones((1, 3))), x).numpy()).all()


def test_hinge_of_several_classes(rng):
    s, t = rng.normal(size=(7, 4)), rng.integers(0, 4, 7)
    expected = [
        sum(max(0, 1 - row[y] + row[j]) for j in range(4) if j != y) / 4 for row, y in zip(s, t, strict=True)
    ]
    numpy.testing.assert_allclose(dl.hinge(s, t, reduction="none").numpy(), expected)
    check_gradients(lambda s: dl.hinge(s, t), s, order=2)


def test_hinge_refuses_other_targets():
    with pytest.raises(ValueError, match="targets must be -1 or 1, got values from 0"):
        dl.hinge([0.5, 0.5], [0.0, 1.0])
    with pytest.raises(ValueError, match=r"class numbers must be in \[0, 1\]"):
        dl.hinge([[0.5, 0.5]], [2])


def test_the_triplet_loss_has_a_gradient_where_two_are_the_same():
    a = dl.tensor(numpy.ones((1, 2)), requires_grad=True)
    loss = dl.triplet(a, numpy.ones((1, 2)), numpy.array([[1.0, 1.5]]))
    assert loss.item() == pytest.approx(0.5)
    numpy.testing.assert_allclose(dl.grad(loss, a).numpy(), [[0, 1]], atol=1e-6)
