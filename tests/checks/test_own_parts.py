"""minidl's own layers, losses and optimizers, checked with what users check theirs with.

Primitives are checked in tests/primitives/test_gradients.py. Shapes and structure come from hypothesis.
"""

import copy
import inspect

import numpy
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import minidl as dl
from minidl import layers, losses, optimizers
from minidl.checks import assert_layer, check_gradients
from minidl.layers.normalize import EXTENTS, METHODS
from tests.checks.random_layers import same_size

SIZES = st.integers(1, 4)
SEEDS = st.integers(0, 2**32 - 1)
OBSERVATIONS = hnp.array_shapes(min_dims=1, max_dims=3, min_side=1, max_side=3)


# --- layers ---------------------------------------------------------------------------------------


@st.composite
def dense(draw):
    inside, outside = draw(SIZES), draw(SIZES)
    lead = draw(hnp.array_shapes(min_dims=0, max_dims=1, max_side=3))
    return dl.Dense(inside, outside, bias=draw(st.booleans()), seed=draw(SEEDS)), (*lead, inside)


@st.composite
def of_any_shape(draw, make):
    return make(draw), draw(OBSERVATIONS)


@st.composite
def reshaping(draw):
    shape = draw(OBSERVATIONS)
    wanted = draw(st.sampled_from([(-1,), tuple(reversed(shape)), (1, *shape)]))
    return dl.Reshape(*wanted), shape


@st.composite
def normalizing(draw):
    shape = draw(OBSERVATIONS)
    layer = dl.Normalize(shape, draw(st.sampled_from(METHODS)), draw(st.sampled_from(EXTENTS)))
    return layer.fit(numpy.random.default_rng(draw(SEEDS)).normal(size=(5, *shape))), shape


@st.composite
def networks(draw):
    features, depth = draw(SIZES), draw(st.integers(0, 3))
    rng = numpy.random.default_rng(draw(SEEDS))
    return dl.Network([same_size(rng, features, depth) for _ in range(draw(st.integers(1, 3)))]), (features,)


IMAGES = st.tuples(st.integers(2, 4), st.integers(2, 4), st.just(2))
INTERPOLATIONS = st.sampled_from(["nearest", "bilinear"])
PADDINGS = st.sampled_from(["valid", "same", 1])


@st.composite
def of_images(draw, make):
    return make(draw), draw(IMAGES)


@st.composite
def convolving(draw, kind, axes=2):
    groups = draw(st.integers(1, 2))
    sizes = {"stride": draw(st.integers(1, 2)), "dilation": draw(st.integers(1, 2)), "groups": groups}
    layer = kind(2, 2 * draw(SIZES), 2, padding=draw(PADDINGS), bias=draw(st.booleans()), **sizes, seed=0)
    return layer, (*draw(st.tuples(*[st.integers(3, 4)] * axes)), 2)


@st.composite
def recurrent(draw, kind):
    inside, outside, steps = draw(SIZES), draw(SIZES), draw(SIZES)
    options = {name: draw(st.booleans()) for name in ("return_sequences", "return_state")}
    return kind(inside, outside, **options, seed=draw(SEEDS)), (steps, inside)


@st.composite
def embedding(draw):
    count = draw(SIZES)
    rng = numpy.random.default_rng(draw(SEEDS))
    padding = draw(st.sampled_from([None, 0]))
    return dl.Embedding(count, draw(SIZES), padding, seed=1), rng.integers(0, count, (5, 3))


@st.composite
def attending(draw):
    layer = dl.MultiHeadAttention(
        4, 2, draw(st.booleans()), draw(st.sampled_from([0, 0.3])), seed=draw(SEEDS)
    )
    return layer, (draw(SIZES), 4)


LAYERS = {
    "AveragePool2D": of_images(lambda draw: dl.AveragePool2D(2, draw(SIZES), draw(PADDINGS))),
    "BatchNorm": of_images(lambda draw: dl.BatchNorm(2, draw(st.sampled_from([0.1, 1.0])))),
    "Conv1D": convolving(dl.Conv1D, axes=1),
    "Conv2D": convolving(dl.Conv2D),
    "ConvTranspose2D": convolving(dl.ConvTranspose2D),
    "DepthwiseConv2D": of_images(
        lambda draw: dl.DepthwiseConv2D(2, 2, draw(SIZES), padding=draw(PADDINGS), seed=1)
    ),
    "ELU": of_any_shape(lambda draw: dl.ELU(draw(st.sampled_from([1.0, 0.5])))),
    "Embedding": embedding(),
    "GELU": of_any_shape(lambda draw: dl.GELU()),
    "GRU": recurrent(dl.GRU),
    "GlobalAveragePool2D": of_images(lambda draw: dl.GlobalAveragePool2D()),
    "GroupNorm": of_images(lambda draw: dl.GroupNorm(draw(st.integers(1, 2)), 2)),
    "LSTM": recurrent(dl.LSTM),
    "LayerNorm": of_images(lambda draw: dl.LayerNorm(2, bias=draw(st.booleans()))),
    "LeakyReLU": of_any_shape(lambda draw: dl.LeakyReLU(draw(st.sampled_from([0.01, 0.3])))),
    "MaxPool2D": of_images(lambda draw: dl.MaxPool2D(2, draw(SIZES), draw(PADDINGS))),
    "MultiHeadAttention": attending(),
    "PReLU": of_images(lambda draw: dl.PReLU(draw(st.integers(1, 2)))),
    "RMSNorm": of_images(lambda draw: dl.RMSNorm(2)),
    "RNN": recurrent(dl.RNN),
    "SiLU": of_any_shape(lambda draw: dl.SiLU()),
    "Softplus": of_any_shape(lambda draw: dl.Softplus()),
    "UpSample2D": of_images(lambda draw: dl.UpSample2D(draw(st.tuples(SIZES, SIZES)), draw(INTERPOLATIONS))),
    "Dense": dense(),
    "Dropout": of_any_shape(lambda draw: dl.Dropout(draw(st.sampled_from([0, 0.3, 0.9])), seed=draw(SEEDS))),
    "Flatten": of_any_shape(lambda draw: dl.Flatten()),
    "Network": networks(),
    "Normalize": normalizing(),
    "ReLU": of_any_shape(lambda draw: dl.ReLU()),
    "Reshape": reshaping(),
    "Sigmoid": of_any_shape(lambda draw: dl.Sigmoid()),
    "Softmax": of_any_shape(lambda draw: dl.Softmax()),
    "Tanh": of_any_shape(lambda draw: dl.Tanh()),
}


def own_layers():
    return {
        name for name, part in vars(layers).items() if inspect.isclass(part) and issubclass(part, dl.Layer)
    }


def test_every_layer_has_a_case():
    assert own_layers() - {"Layer", "RBM"} == LAYERS.keys(), "a new layer needs an entry in LAYERS"


@pytest.mark.parametrize("hidden", ["bernoulli", "gaussian"])
def test_rbm(hidden):
    reason = "the visible bias is for reconstruct(); contrastive_divergence() trains it"
    assert_layer(dl.RBM(4, 3, hidden=hidden, seed=0), (4,), skip={"gradients exist": reason})


@pytest.mark.parametrize("name", LAYERS)
@settings(max_examples=8)
@given(data=st.data())
def test_layers(name, data):
    layer, shape = data.draw(LAYERS[name])
    assert_layer(layer, shape, seed=data.draw(st.integers(0, 99)))


@settings(max_examples=15)
@given(data=st.data())
def test_second_order_of_nested_and_shared_layers(data):
    layer, (features,) = data.draw(networks())
    check_gradients(layer, numpy.random.default_rng(data.draw(SEEDS)).normal(size=(2, features)), order=2)


# --- losses ---------------------------------------------------------------------------------------


def probabilities(rng, shape):
    return rng.uniform(0.1, 0.9, shape), rng.uniform(0, 1, shape)


def numbers(rng, shape):
    return rng.normal(size=shape), rng.uniform(0, 1, shape)


def numbers_and_distributions(rng, shape):
    target = rng.uniform(0.1, 1, shape)
    return rng.normal(size=shape), target / target.sum(axis=-1, keepdims=True)


def numbers_and_signs(rng, shape):
    return rng.normal(size=shape), rng.choice([-1.0, 1.0], shape)


def vectors(rng, shape):
    return rng.normal(size=(*shape, 3)), rng.normal(size=(*shape, 3))


def log_distributions(rng, shape):
    z, target = numbers_and_distributions(rng, (*shape, 3))
    return z - numpy.log(numpy.exp(z).sum(axis=-1, keepdims=True)), target


def triplet(prediction, target, reduction):
    return dl.triplet(prediction, target, target[::-1] + 2, reduction=reduction)


LOSSES = {
    "binary_cross_entropy": probabilities,
    "binary_cross_entropy_with_logits": numbers,
    "cosine_distance": vectors,
    "hinge": numbers_and_signs,
    "huber": numbers,
    "kl_divergence": log_distributions,
    "mean_absolute_error": numbers,
    "mean_squared_error": numbers,
    "softmax_cross_entropy": numbers_and_distributions,
    "triplet": vectors,
}


def test_every_loss_has_a_case():
    public = {
        name
        for name, part in vars(losses).items()
        if inspect.isfunction(part) and part.__module__ == losses.__name__ and not name.startswith("_")
    }
    assert public == LOSSES.keys(), "a new loss needs an entry in LOSSES"


@pytest.mark.parametrize("name", LOSSES)
@settings(max_examples=12)
@given(data=st.data())
def test_losses(name, data):
    rng = numpy.random.default_rng(data.draw(SEEDS))
    prediction, target = LOSSES[name](rng, data.draw(OBSERVATIONS))
    reduction = data.draw(st.sampled_from(losses.REDUCTIONS))
    function = triplet if name == "triplet" else getattr(dl, name)
    loss = lambda p: function(p, target, reduction=reduction)
    check_gradients(lambda p: loss(p), prediction, order=2)


# --- optimizers -----------------------------------------------------------------------------------

OPTIMIZERS = {
    "SGD": lambda p: optimizers.SGD(p, 0.1, nesterov=True),
    "RMSProp": lambda p: optimizers.RMSProp(p, 0.01),
    "Adam": lambda p: optimizers.Adam(p, 0.01, l2=0.1),
    "AdamW": lambda p: optimizers.AdamW(p, 0.01),
    "Nadam": lambda p: optimizers.Nadam(p, 0.01),
    "Adagrad": lambda p: optimizers.Adagrad(p, 0.1, initial=0.1),
}
#: Those for a full batch make no single steps; tests/optimizers and tests/oracle compare what they end with.
NOT_STEPPED = {"LBFGS", "ConjugateGradient", "Optimizer"}


def measured_gradient(evaluate, parameter):
    """Return central differences of a function, for each element of a Parameter."""
    result = numpy.empty(parameter.shape)
    for index in numpy.ndindex(parameter.shape):
        value = parameter.data[index]
        sides = []
        for step in (6e-6, -6e-6):
            parameter.data[index] = value + step
            sides.append(evaluate().item())
        parameter.data[index] = value
        result[index] = (sides[0] - sides[1]) / 12e-6
    return result


def test_every_optimizer_has_a_case():
    assert set(optimizers.__all__) == OPTIMIZERS.keys() | NOT_STEPPED


@pytest.mark.parametrize("name", OPTIMIZERS)
@settings(max_examples=5)
@given(data=st.data())
def test_updates_by_backward_are_those_by_differences(name, data):
    """Three steps with the gradients of backward, and three with measured ones, end at the same values."""
    features, seed = data.draw(st.integers(1, 3)), data.draw(SEEDS)
    rng = numpy.random.default_rng(seed)
    shared = dl.Dense(features, features, seed=seed)
    ours = dl.Network([shared, dl.Tanh(), dl.Network([dl.Dense(features, features, seed=seed), shared])])
    ours.astype("float64")
    twin = copy.deepcopy(ours)
    first, second = OPTIMIZERS[name](ours.parameters()), OPTIMIZERS[name](twin.parameters())
    for x in rng.normal(size=(3, 4, features)):
        dl.mean_squared_error(ours(x), x).backward()
        first.step()
        measured = [
            measured_gradient(lambda x=x: dl.mean_squared_error(twin(x), x), p) for p in twin.parameters()
        ]
        for parameter, gradient in zip(twin.parameters(), measured, strict=True):
            parameter.grad = dl.tensor(gradient)
        second.step()
    for a, b in zip(ours.parameters(), twin.parameters(), strict=True):
        numpy.testing.assert_allclose(a.numpy(), b.numpy(), rtol=1e-4, atol=1e-5)
