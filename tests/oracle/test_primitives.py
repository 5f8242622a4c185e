"""Every primitive against PyTorch: values and gradients, to float64 accuracy, on the inputs that hypothesis
draws for the gradient checks."""

import numpy
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import minidl as dl
from minidl.primitives.indexing import SLOT
from tests.primitives.test_gradients import BUILT_IN, case

torch = pytest.importorskip(
    "torch", reason="PyTorch, the oracle, is not installed: pip install -e '.[oracle]'"
)
pytestmark = pytest.mark.oracle


def index_key(key, positions):
    remaining = iter(positions)
    return tuple(next(remaining) if part is SLOT else part for part in key)


def sliced(x, *positions, key):
    """PyTorch has no negative steps: such axes are turned around first."""
    for axis, part in reversed(list(enumerate(expanded(key, x.ndim)))):
        if isinstance(part, slice):
            places = torch.tensor(range(x.shape[axis])[part], dtype=torch.int64)
            x = x.index_select(axis, places)
        else:
            x = x.select(axis, part)
    return x.reshape(tuple(new_shape(key, x.shape)))


def expanded(key, ndim):
    """Return a basic key as one integer or slice for each axis."""
    parts = [part for part in key if part is not None]
    given_axes = sum(part is not Ellipsis for part in parts)
    rest = [slice(None)] * (ndim - given_axes)
    if Ellipsis not in parts:
        return parts + rest
    place = parts.index(Ellipsis)
    return parts[:place] + rest + parts[place + 1 :]


def new_shape(key, shape):
    """Return the shape with the new axes of a basic key put in."""
    remaining = list(shape)
    before = key[: key.index(Ellipsis)] if Ellipsis in key else key
    after = key[key.index(Ellipsis) + 1 :] if Ellipsis in key else ()
    kept_after = sum(isinstance(part, slice) for part in after)
    middle = remaining[sum(isinstance(part, slice) for part in before) : len(remaining) - kept_after]
    front, back = iter(remaining), iter(remaining[len(remaining) - kept_after :])
    first = [1 if part is None else next(front) for part in before if not isinstance(part, int)]
    last = [1 if part is None else next(back) for part in after if not isinstance(part, int)]
    return [*first, *middle, *last]


def scattered(g, *positions, key, shape):
    """The gradient of indexing, which is how PyTorch defines it too."""
    source = torch.zeros(shape, dtype=g.dtype, requires_grad=True)
    if positions:
        places = tuple(part for part in index_key(key, positions) if not isinstance(part, slice))
        return source.detach().index_put(places, g, accumulate=True)
    picked = sliced(source, key=key)
    return torch.autograd.grad(picked, source, g, create_graph=True)[0]


def padded(x, widths, value):
    flat = [width for pair in reversed(widths) for width in pair]
    return torch.nn.functional.pad(x, flat, value=value)


def reduced(function):
    def reduce(x, axis, keepdims):
        for a in sorted(axis, reverse=True):
            x = function(x, a, keepdims)
        return x

    return reduce


def softmaxed(x, axis):
    if not axis:
        return x * 0 + 1
    return torch.exp(x - torch.logsumexp(x, axis, keepdim=True))


def convolved(x, w, stride, padding, dilation, groups):
    """Convolve; PyTorch has channels first, and no borders that differ before and after."""
    axes = len(stride)
    function = (torch.nn.functional.conv1d, torch.nn.functional.conv2d)[axes - 1]
    x = padded(x, ((0, 0), *padding, (0, 0)), 0.0).movedim(-1, 1)
    return function(x, w.movedim((-1, -2), (0, 1)), None, stride, 0, dilation, groups).movedim(1, -1)


def convolved_transposed(g, w, lengths, **where):
    x = torch.zeros((len(g), *lengths, w.shape[-2] * where["groups"]), dtype=g.dtype, requires_grad=True)
    return torch.autograd.grad(convolved(x, w, **where), x, g, create_graph=True)[0]


def weights_gradient(x, g, window, **where):
    w = torch.zeros((*window, x.shape[-1] // where["groups"], g.shape[-1]), dtype=x.dtype, requires_grad=True)
    return torch.autograd.grad(convolved(x, w, **where), w, g, create_graph=True)[0]


def unfolded(x, window, stride, dilation):
    for axis, (k, s, d) in enumerate(zip(window, stride, dilation, strict=True), 1):
        x = x.unfold(axis, (k - 1) * d + 1, s)[..., ::d]
    return x.movedim(1 + len(window), -1)


def folded(parts, lengths, stride, dilation):
    x = torch.zeros((len(parts), *lengths, parts.shape[-1]), dtype=parts.dtype, requires_grad=True)
    window = parts.shape[1 + len(lengths) : -1]
    return torch.autograd.grad(unfolded(x, window, stride, dilation), x, parts, create_graph=True)[0]


def selected(values, x, window, stride):
    axes = range(1, 1 + len(window))
    values, x = (
        unfolded(y, window, stride, [1 for _ in axes]).flatten(1 + len(window), -2) for y in (values, x)
    )
    return values.gather(-2, x.argmax(-2, keepdim=True)).squeeze(-2)


def scattered_to_maxima(g, x, window, stride):
    values = torch.zeros_like(x, requires_grad=True)
    return torch.autograd.grad(selected(values, x, window, stride), values, g, create_graph=True)[0]


DTYPES = {numpy.dtype("float64"): torch.float64}

ORACLES = {
    "add": torch.add,
    "subtract": torch.subtract,
    "multiply": torch.multiply,
    "divide": torch.divide,
    "power": torch.pow,
    "negative": torch.negative,
    "absolute": torch.abs,
    "sign": torch.sign,
    "floor": torch.floor,
    "exp": torch.exp,
    "log": torch.log,
    "log1p": torch.log1p,
    "sqrt": torch.sqrt,
    "sin": torch.sin,
    "cos": torch.cos,
    "relu": torch.relu,
    "relu_backward": lambda g, y: g * (y > 0),
    "sigmoid": torch.sigmoid,
    "sigmoid_backward": lambda g, y: g * y * (1 - y),
    "tanh": torch.tanh,
    "tanh_backward": lambda g, y: g * (1 - y * y),
    "softplus": torch.nn.functional.softplus,
    "sigmoid_cross_entropy": lambda z, t: torch.nn.functional.softplus(z) - z * t,
    "equal": torch.eq,
    "not_equal": torch.ne,
    "less": torch.lt,
    "less_equal": torch.le,
    "greater": torch.gt,
    "greater_equal": torch.ge,
    "maximum": torch.maximum,
    "minimum": torch.minimum,
    "where": torch.where,
    "clip": lambda x, low, high: torch.clamp(x, low, high),
    "cast": lambda x, dtype: x.to(DTYPES[dtype]),
    "sum": reduced(lambda x, a, k: torch.sum(x, a, keepdim=k)),
    "max": reduced(lambda x, a, k: torch.amax(x, a, keepdim=k)),
    "min": reduced(lambda x, a, k: torch.amin(x, a, keepdim=k)),
    "logsumexp": reduced(lambda x, a, k: torch.logsumexp(x, a, keepdim=k)),
    "softmax": softmaxed,
    "log_softmax": lambda x, axis: x - torch.logsumexp(x, axis, keepdim=True) if axis else x * 0,
    "argmax": lambda x, axis: torch.argmax(x, axis),
    "argmin": lambda x, axis: torch.argmin(x, axis),
    "argsort": lambda x, axis: torch.argsort(x, dim=axis, stable=True),
    "cumsum": lambda x, axis: torch.cumsum(x, axis),
    "bitwise_and": torch.bitwise_and,
    "bitwise_or": torch.bitwise_or,
    "bitwise_xor": torch.bitwise_xor,
    "inv": torch.linalg.inv,
    "solve": torch.linalg.solve,
    "cholesky": torch.linalg.cholesky,
    "log_abs_det": lambda x: torch.linalg.slogdet(x)[1],
    "sign_of_det": lambda x: torch.linalg.slogdet(x)[0],
    **{
        name: getattr(torch, name)
        for name in (
            *("exp2", "expm1", "log2", "log10", "logaddexp", "tan", "sinh", "cosh"),
            *("arcsin", "arccos", "arctan", "arctan2", "arcsinh", "arccosh", "arctanh"),
            *("erf", "erfinv", "ceil", "trunc", "floor_divide"),
        )
    },
    "rint": torch.round,
    "mod": torch.remainder,
    "reshape": lambda x, shape: x.reshape(shape),
    "transpose": lambda x, axes: x.permute(axes),
    "broadcast_to": lambda x, shape: x.broadcast_to(shape),
    "concatenate": lambda *parts, axis: torch.cat(parts, axis),
    "pad": padded,
    "matmul": torch.matmul,
    "slice": sliced,
    "gather": lambda x, *positions, key: x[index_key(key, positions)],
    "scatter_add": scattered,
    "conv": convolved,
    "conv_input": convolved_transposed,
    "conv_weight": weights_gradient,
    "windows": unfolded,
    "overlap_add": folded,
    "select_maxima": selected,
    "scatter_to_maxima": scattered_to_maxima,
}
#: What PyTorch has no equal of.
NOT_COMPARED = {
    "detach": "has a value and no gradient by its meaning",
    "assign": "has no result",
    "check": "has no result but True",
    "allreduce": "needs other processes",
    "set_items": "has no gradient; see tests/test_tensor.py",
    "random_uniform": "draws other numbers than PyTorch",
    "random_normal": "draws other numbers than PyTorch",
    "add_at": "scatter_add, added to something",
    "window_view": "windows, not copied",
    "sort_places": "a step of scatter_add on a GPU",
    "merge_places": "a step of scatter_add on a GPU",
    "sum_runs": "a step of scatter_add on a GPU",
    "scatter_sorted": "a step of scatter_add on a GPU",
    "round_off": "takes float32 alone: see test_rounding_to_bfloat16",
    "to_bfloat16": "takes float32 alone: see test_rounding_to_bfloat16",
}


def test_every_primitive_has_an_oracle():
    assert BUILT_IN.keys() == ORACLES.keys() | NOT_COMPARED.keys()


@pytest.mark.parametrize("name", ORACLES)
@settings(max_examples=10)
@given(data=st.data())
def test_values_and_gradients(name, data):
    primitive = BUILT_IN[name]
    inputs, attributes = data.draw(case(primitive))
    ours = [dl.tensor(x, requires_grad=x.dtype.kind == "f") for x in inputs]
    theirs = [torch.tensor(x.copy(), requires_grad=x.dtype.kind == "f") for x in inputs]
    y, z = primitive(*ours, **attributes), ORACLES[name](*theirs, **attributes)
    numpy.testing.assert_allclose(y.numpy(), z.detach().numpy(), rtol=1e-12, atol=1e-13)
    if not primitive.differentiable:
        return
    g = numpy.random.default_rng(0).normal(size=y.shape)
    differentiated = [i for i, x in enumerate(ours) if x.requires_grad]
    gradients = dl.grad(y, [ours[i] for i in differentiated], gradient=dl.tensor(g))
    expected = torch.autograd.grad(
        z, [theirs[i] for i in differentiated], torch.tensor(g), allow_unused=True, materialize_grads=True
    )
    for index, a, b in zip(differentiated, gradients, expected, strict=True):
        if name == "relu_backward" and index == 1:
            continue  # a mask: no gradient by definition
        numpy.testing.assert_allclose(a.numpy(), b.numpy(), rtol=1e-11, atol=1e-12)


def test_rounding_to_bfloat16():
    """All the patterns of the upper 16 bits, with lower bits on both sides of a tie and on it."""
    upper = numpy.arange(1 << 16, dtype=numpy.uint32) << 16
    lower = numpy.array([0x0000, 0x0001, 0x7FFF, 0x8000, 0x8001, 0xFFFF], numpy.uint32)
    x = (upper[:, None] | lower).view(numpy.float32)
    expected = torch.from_numpy(x).bfloat16()
    number = ~numpy.isnan(x)  # the bits of a NaN say nothing
    rounded = BUILT_IN["round_off"](dl.tensor(x), bits=7).numpy()
    numpy.testing.assert_array_equal(rounded, expected.float().numpy())
    packed = BUILT_IN["to_bfloat16"](dl.tensor(x)).numpy()
    numpy.testing.assert_array_equal(packed[number], expected.view(torch.uint16).numpy()[number])


@pytest.mark.parametrize(("shape", "lengths"), [((5,), (8,)), ((4, 9), (7, 3)), ((2, 3, 4), (3, 2, 9))])
@pytest.mark.parametrize("interpolation", ["nearest", "linear"])
def test_resizing(interpolation, shape, lengths, rng):
    x = rng.normal(size=(2, *shape, 3))
    linear = ("linear", "bilinear", "trilinear")[len(shape) - 1]
    ours, theirs = dl.tensor(x, requires_grad=True), torch.tensor(x, requires_grad=True)
    y = dl.resize(ours, lengths, interpolation)
    z = torch.nn.functional.interpolate(
        theirs.movedim(-1, 1), lengths, mode="nearest-exact" if interpolation == "nearest" else linear
    ).movedim(1, -1)
    numpy.testing.assert_allclose(y.numpy(), z.detach().numpy(), rtol=1e-13, atol=1e-14)
    g = rng.normal(size=y.shape)
    expected = torch.autograd.grad(z, theirs, torch.tensor(g))[0].numpy()
    numpy.testing.assert_allclose(
        dl.grad(y, ours, gradient=dl.tensor(g)).numpy(), expected, rtol=1e-12, atol=1e-14
    )
