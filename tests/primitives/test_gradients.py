"""Every primitive: gradients of first and second order, destinations, and what may be overwritten.

The tests run over the table of primitives. An elementwise primitive joins by being declared; any
other needs an entry in CASES, and test_every_primitive_has_a_case says so.
"""

import numpy
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import minidl as dl
from minidl.checks import check_gradients
from minidl.distributed import sums  # noqa: F401, it declares a primitive
from minidl.primitives.indexing import SLOT
from minidl.primitives.primitive import PRIMITIVES
from minidl.program.lowered import add_at, check, window_view  # noqa: F401, they declare primitives
from minidl.program.lowered.sorted_scatter import RUN, sort_places_
from tests.distributed.mirror import Mirror

BUILT_IN = dict(PRIMITIVES)  # without those that other tests declare
SHAPES = hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=3)
FILLED = hnp.array_shapes(min_dims=1, max_dims=3, min_side=1, max_side=3)


@st.composite
def values(draw, shape, domain=(-2.0, 2.0), stream=0):
    """Float64 numbers in a domain, of contiguous or strided memory; never at a kink, never equal."""
    rng = numpy.random.default_rng((draw(st.integers(0, 2**32 - 1)), stream))
    if shape and draw(st.booleans()):
        return rng.uniform(*domain, (*shape[:-1], 2 * shape[-1]))[..., ::-2]
    return rng.uniform(*domain, shape)


def some_axes(draw, ndim, at_least=0):
    return tuple(sorted(draw(st.sets(st.integers(0, ndim - 1), min_size=at_least)))) if ndim else ()


@st.composite
def broadcasting(draw, primitive):
    """Inputs of different shapes that NumPy broadcasts to one."""
    count = len(primitive.gradients)
    shapes = draw(hnp.mutually_broadcastable_shapes(num_shapes=count, max_dims=3, min_side=0, max_side=3))
    inputs = [draw(values(shape, primitive.domain, i)) for i, shape in enumerate(shapes.input_shapes)]
    return inputs, {}


@st.composite
def with_condition(draw, primitive):
    (condition, a, b), attributes = draw(broadcasting(primitive))
    return [condition > 0, a, b], attributes


@st.composite
def one_input(draw, primitive, shapes=SHAPES, **attributes):
    return [draw(values(draw(shapes), primitive.domain))], attributes


@st.composite
def single_precision(draw, primitive, **attributes):
    return [draw(values(draw(SHAPES))).astype("float32")], attributes


@st.composite
def reducing(draw, primitive, shapes=SHAPES, keepdims=True):
    x = draw(values(draw(shapes)))
    attributes = {"axis": some_axes(draw, x.ndim)}
    return [x], attributes | ({"keepdims": draw(st.booleans())} if keepdims else {})


@st.composite
def reshaping(draw, primitive):
    x = draw(values(draw(SHAPES)))
    return [x], {"shape": draw(st.sampled_from([(x.size,), (1, x.size), (*x.shape, 1)]))}


@st.composite
def transposing(draw, primitive):
    x = draw(values(draw(SHAPES)))
    return [x], {"axes": tuple(draw(st.permutations(range(x.ndim))))}


@st.composite
def broadcasting_to(draw, primitive):
    shapes = draw(hnp.mutually_broadcastable_shapes(num_shapes=1, base_shape=draw(SHAPES)))
    return [draw(values(shapes.input_shapes[0]))], {"shape": shapes.result_shape}


@st.composite
def concatenating(draw, primitive):
    shape, lengths = draw(FILLED), draw(st.lists(st.integers(0, 3), min_size=1, max_size=3))
    axis = draw(st.integers(0, len(shape) - 1))
    parts = [draw(values((*shape[:axis], length, *shape[axis + 1 :]))) for length in lengths]
    return parts, {"axis": axis}


@st.composite
def padding(draw, primitive):
    x = draw(values(draw(SHAPES)))
    widths = tuple(draw(st.tuples(st.integers(0, 2), st.integers(0, 2))) for _ in x.shape)
    return [x], {"widths": widths, "value": 0.5}


@st.composite
def multiplying(draw, primitive):
    stacks = draw(hnp.mutually_broadcastable_shapes(num_shapes=2, max_dims=2, min_side=0, max_side=2))
    n, k, m = draw(st.tuples(*[st.integers(0, 3)] * 3))
    left, right = stacks.input_shapes
    return [draw(values((*left, n, k))), draw(values((*right, k, m)))], {}


@st.composite
def slicing(draw, primitive):
    x = draw(values(draw(FILLED)))
    key = draw(hnp.basic_indices(x.shape, allow_newaxis=True))
    return [x], {"key": key if isinstance(key, tuple) else (key,)}


@st.composite
def gathering(draw, primitive):
    x = draw(values(draw(FILLED)))
    where = draw(hnp.arrays(numpy.int64, draw(SHAPES), elements=st.integers(-len(x), len(x) - 1)))
    rest = (slice(None),) if x.ndim > 1 and draw(st.booleans()) else ()
    return [x, where], {"key": (SLOT, *rest)}


@st.composite
def scattering(draw, primitive):
    (x, where), attributes = draw(gathering(primitive))
    g = draw(values(x[where].shape))
    return [g, where], attributes | {"shape": x.shape}


@st.composite
def adding_at(draw, primitive):
    (g, where), attributes = draw(scattering(primitive))
    return [draw(values(attributes["shape"])), g, where], attributes


@st.composite
def sorting(draw, primitive):
    where = draw(hnp.arrays(numpy.int64, draw(SHAPES), elements=st.integers(-3, 2)))
    stretch = draw(st.integers(1, 9))
    return [where], {"lengths": (3,), "stretch": stretch, "dtype": numpy.dtype("int32")}


@st.composite
def merging(draw, primitive):
    (where,), attributes = draw(sorting(primitive))
    return [sort_places_.forward(numpy, where, **attributes)], {"stretch": attributes["stretch"]}


@st.composite
def scattering_in_order(draw, primitive):
    where = draw(hnp.arrays(numpy.int64, st.integers(0, 3 * RUN), elements=st.integers(-3, 2)))
    places = sort_places_.forward(numpy, where, lengths=(3,), stretch=1000, dtype=numpy.dtype("int64"))
    return [draw(values((len(where), 2))), places, where], {"key": (SLOT,), "shape": (3, 2)}


def convolution(draw):
    """Settings of a convolution along one or two axes, and the shapes of x, w and g."""
    axes = draw(st.integers(1, 2))
    window, stride, dilation = (draw(st.tuples(*[st.integers(1, 2)] * axes)) for _ in range(3))
    padding = tuple(draw(st.tuples(st.integers(0, 2), st.integers(0, 1))) for _ in range(axes))
    count = draw(st.tuples(*[st.integers(1, 2)] * axes))
    groups, inside, outside, batch, beyond = draw(st.tuples(*[st.integers(1, 2)] * 4, st.integers(0, 1)))
    spans = [
        (k - 1) * d + 1 + (n - 1) * s for k, d, n, s in zip(window, dilation, count, stride, strict=True)
    ]
    lengths = [span - sum(pair) for span, pair in zip(spans, padding, strict=True)]
    if min(lengths) < 1:
        padding, lengths = ((0, 0),) * axes, spans
    lengths[0] += beyond * (stride[0] - 1)  # elements at the end that no window reaches
    attributes = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
    shapes = (
        (batch, *lengths, groups * inside),
        (*window, inside, groups * outside),
        (batch, *count, groups * outside),
    )
    return shapes, attributes


@st.composite
def convolving(draw, primitive):
    (x, w, g), attributes = convolution(draw)
    chosen = {"conv": (x, w), "conv_input": (g, w), "conv_weight": (x, g)}[primitive.name]
    if primitive.name == "conv_input":
        attributes["lengths"] = x[1:-1]
    if primitive.name == "conv_weight":
        attributes["window"] = w[:-2]
    return [draw(values(shape, stream=i)) for i, shape in enumerate(chosen)], attributes


def sliding(draw):
    """The shapes of images and of their windows, with the settings."""
    (x, w, g), attributes = convolution(draw)
    lengths = [length + sum(pair) for length, pair in zip(x[1:-1], attributes["padding"], strict=True)]
    settings = {name: attributes[name] for name in ("stride", "dilation")}
    return (x[0], *lengths, x[-1]), (*g[:-1], *w[:-2], x[-1]), settings


@st.composite
def unfolding(draw, primitive):
    x, parts, settings = sliding(draw)
    return [draw(values(x))], settings | {"window": parts[len(x) - 1 : -1]}


@st.composite
def folding(draw, primitive):
    x, parts, settings = sliding(draw)
    return [draw(values(parts))], settings | {"lengths": x[1:-1]}


@st.composite
def pooling(draw, primitive):
    axes = draw(st.integers(1, 2))
    window, stride, count = (draw(st.tuples(*[st.integers(1, 3)] * axes)) for _ in range(3))
    lengths = [(n - 1) * s + k for n, s, k in zip(count, stride, window, strict=True)]
    x = draw(values((2, *lengths, 2)))
    first = (2, *count, 2) if primitive.name == "scatter_to_maxima" else x.shape
    return [draw(values(first, stream=1)), x], {"window": window, "stride": stride}


@st.composite
def whole_numbers(draw, primitive):
    shape = draw(SHAPES)
    return [draw(hnp.arrays(numpy.int64, shape, elements=st.integers(-5, 5))) for _ in range(2)], {}


@st.composite
def along_an_axis(draw, primitive):
    x = draw(values(draw(FILLED)))
    return [x], {"axis": draw(st.integers(0, x.ndim - 1))}


@st.composite
def replacing(draw, primitive):
    (g, where), attributes = draw(scattering(primitive))
    return [draw(values(attributes.pop("shape"), stream=1)), g, where], attributes


@st.composite
def square_matrices(draw, primitive):
    """Matrices with a large diagonal, which have an inverse and are positive definite."""
    n, stack = draw(st.integers(1, 3)), draw(st.sampled_from([(), (2,)]))
    x = draw(values((*stack, n, n), (-0.3, 0.3)))
    return [x + 2 * numpy.eye(n)], {}


@st.composite
def positive_definite(draw, primitive):
    (x,), _ = draw(square_matrices(primitive))
    return [(x + x.swapaxes(-1, -2)) / 2], {}


@st.composite
def solving(draw, primitive):
    (a,), _ = draw(square_matrices(primitive))
    return [a, draw(values((*a.shape[:-1], draw(st.integers(1, 2))), stream=1))], {}


CASES = {
    "conv": convolving,
    "conv_input": convolving,
    "conv_weight": convolving,
    "windows": unfolding,
    "window_view": unfolding,
    "overlap_add": folding,
    "select_maxima": pooling,
    "scatter_to_maxima": pooling,
    "where": with_condition,
    "clip": lambda p: one_input(p, low=-1.0, high=0.7),
    "cast": lambda p: one_input(p, dtype=numpy.dtype("float64")),
    "round_off": lambda p: single_precision(p, bits=10),
    "to_bfloat16": single_precision,
    "sum": reducing,
    "max": lambda p: reducing(p, FILLED),
    "min": lambda p: reducing(p, FILLED),
    "logsumexp": lambda p: reducing(p, FILLED),
    "softmax": lambda p: reducing(p, FILLED, keepdims=False),
    "log_softmax": lambda p: reducing(p, FILLED, keepdims=False),
    "argmax": lambda p: one_input(p, FILLED, axis=0),
    "argmin": lambda p: one_input(p, FILLED, axis=0),
    "argsort": along_an_axis,
    "cumsum": along_an_axis,
    "bitwise_and": whole_numbers,
    "bitwise_or": whole_numbers,
    "bitwise_xor": whole_numbers,
    "set_items": replacing,
    "inv": square_matrices,
    "solve": solving,
    "cholesky": positive_definite,
    "log_abs_det": square_matrices,
    "sign_of_det": square_matrices,
    "reshape": reshaping,
    "transpose": transposing,
    "broadcast_to": broadcasting_to,
    "detach": one_input,
    "concatenate": concatenating,
    "pad": padding,
    "matmul": multiplying,
    "slice": slicing,
    "gather": gathering,
    "scatter_add": scattering,
    "add_at": adding_at,
    "sort_places": sorting,
    "merge_places": merging,
    "sum_runs": scattering_in_order,
    "scatter_sorted": scattering_in_order,
    "check": lambda p: one_input(p, holds=lambda x: True, message=str),
    "allreduce": lambda p: one_input(p, communicator=Mirror(3), waits=False),
    "random_uniform": lambda p: one_input(p, generator=dl.Generator(0)),
    "random_normal": lambda p: one_input(p, generator=dl.Generator(0)),
}
#: What is done with the inputs of a primitive first, whose gradients hold for such inputs alone.
PREPARED = {"cholesky": lambda x: (x + dl.swapaxes(x, -1, -2)) / 2}
WITHOUT_RESULT = {"assign"}
FLOAT32_ONLY = ("round_off", "to_bfloat16")


def case(primitive):
    elementwise = broadcasting if primitive.kind == "elementwise" else None
    return CASES.get(primitive.name, elementwise)(primitive)


def primitives(*exclude, **wanted):
    chosen = [
        p
        for name, p in BUILT_IN.items()
        if name not in WITHOUT_RESULT | set(exclude) and all(getattr(p, k) == v for k, v in wanted.items())
    ]
    return pytest.mark.parametrize("primitive", chosen, ids=lambda p: p.name)


def test_every_primitive_has_a_case():
    covered = CASES.keys() | WITHOUT_RESULT
    elementwise = {name for name, p in BUILT_IN.items() if p.kind == "elementwise"}
    assert BUILT_IN.keys() == covered | elementwise, "a new primitive needs an entry in CASES"


@primitives(differentiable=True)
@given(data=st.data())
def test_gradients_of_first_and_second_order(primitive, data):
    inputs, attributes = data.draw(case(primitive))
    prepare = PREPARED.get(primitive.name, lambda x: x)
    check_gradients(lambda *xs: primitive(*map(prepare, xs), **attributes), *inputs, order=2)


@primitives(differentiable=False)
@given(data=st.data())
def test_no_gradient_is_claimed_where_there_is_none(primitive, data):
    inputs, attributes = data.draw(case(primitive))
    out = primitive(*(dl.tensor(x, requires_grad=x.dtype.kind == "f") for x in inputs), **attributes)
    assert not out.requires_grad


@primitives("random_uniform", "random_normal", "detach")
@given(data=st.data())
def test_destination_is_filled_with_the_same_result(primitive, data):
    inputs, attributes = data.draw(case(primitive))
    expected = numpy.asarray(primitive.forward(numpy, *inputs, **attributes))
    before = [x.copy() for x in inputs]
    out = numpy.full(expected.shape, 77, expected.dtype)
    with numpy.errstate(all="ignore"):
        result = primitive.forward(numpy, *inputs, out=out, **attributes)
    assert result is out
    numpy.testing.assert_array_equal(out, expected)
    for x, y in zip(inputs, before, strict=True):
        numpy.testing.assert_array_equal(x, y)


@primitives(kind="elementwise")
@given(data=st.data())
def test_result_may_take_the_place_of_the_inputs_it_overwrites(primitive, data):
    inputs, attributes = data.draw(case(primitive))
    inputs = [numpy.array(x) for x in numpy.broadcast_arrays(*inputs)]
    expected = primitive.forward(numpy, *inputs, **attributes)
    overwritten = range(len(inputs)) if primitive.may_alias is None else primitive.may_alias
    for index in overwritten:
        if inputs[index].dtype == expected.dtype:
            copies = [x.copy() for x in inputs]
            primitive.forward(numpy, *copies, out=copies[index], **attributes)
            numpy.testing.assert_array_equal(copies[index], expected)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@primitives("cast", *FLOAT32_ONLY)
@given(data=st.data())
def test_dtype_of_the_inputs_is_kept(primitive, dtype, data):
    inputs, attributes = data.draw(case(primitive))
    inputs = [x.astype(dtype) if x.dtype.kind == "f" else x for x in inputs]
    out = primitive(*inputs, **attributes)
    assert out.dtype.kind != "f" or out.dtype == dtype
