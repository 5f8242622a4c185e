"""Our own exp, log and relatives are within 2 units in the last place, for numbers of every size and kind."""

import re
import subprocess

import numpy
import pytest
from scipy import special

import minidl as dl
from minidl.program.cpu import c_code, kernel_cache
from tests.program.networks import needs_c

REFERENCES = {
    "exp": numpy.exp,
    "expm1": numpy.expm1,
    "log": numpy.log,
    "log1p": numpy.log1p,
    "tanh": numpy.tanh,
    "erf": special.erf,
}
#: Those that double has, too; the others call the C library.
OF_DOUBLE = [name for name in REFERENCES if name != "erf"]
TOLERANCE = 2
WIDER = {"float32": numpy.float64, "float64": numpy.longdouble}
EDGES = [
    *(0.0, 1e-45, 1.1754942e-38, 1.1754944e-38, 3.4028235e38, 1, 0.5, numpy.inf, numpy.nan, 5e-324, 2.2e-308),
    *(2.225073858507201e-308, 1.7976931348623157e308, 88.72283, 88.72284, 103.97207, 103.97208, 87.33654),
    *(
        709.782712893384,
        709.7827128933841,
        745.1332191019411,
        745.1332191019412,
        0.625,
        0.3465736,
        4,
        9.01,
        22,
    ),
]


def numbers(dtype):
    """Return numbers of every exponent and sign, others where the functions bend, and the edges."""
    generator = numpy.random.default_rng(0)
    unsigned = numpy.dtype(f"u{numpy.dtype(dtype).itemsize}")
    every = numpy.arange(1 << 16).astype(unsigned) << unsigned.type(8 * unsigned.itemsize - 16)
    low = generator.integers(0, 1 << (8 * unsigned.itemsize - 16), (3, every.size)).astype(unsigned)
    every = (every | low).reshape(-1).view(dtype)
    dense = [generator.uniform(-width, width, 40_000) for width in (0.02, 1.5, 5, 100, 750)]
    edges = numpy.array([*EDGES, *(-x for x in EDGES)]).astype(dtype)
    return numpy.concatenate([every, *(part.astype(dtype) for part in dense), edges])


def distance(result, exact):
    """Return how many units in the last place results are from exact ones, which are of a wider dtype."""
    nearest = exact.astype(result.dtype)
    unit = numpy.spacing(abs(nearest)).astype(exact.dtype)
    both_finite = numpy.isfinite(result) & numpy.isfinite(nearest)
    same = (result == nearest) | (numpy.isnan(result) & numpy.isnan(nearest))
    far = numpy.where(both_finite, abs(result.astype(exact.dtype) - exact) / unit, numpy.inf)
    return numpy.where(same, 0, far)


@pytest.fixture(
    params=["default", pytest.param("zig", marks=pytest.mark.slow)],
)
def a_compiler(request, monkeypatch):
    if request.param == "zig":
        if kernel_cache.zig() is None:
            pytest.skip("the package ziglang is not installed")
        monkeypatch.setattr(kernel_cache, "compiler", kernel_cache.zig)
    elif kernel_cache.compiler() is None:
        pytest.skip("there is no C compiler on this machine")
    return kernel_cache.compiler()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@numpy.errstate(all="ignore")
def test_functions_of_one_number(dtype, a_compiler):
    names = list(REFERENCES) if dtype == "float32" else OF_DOUBLE
    x = numbers(dtype)
    function = dl.compile(lambda x: [getattr(dl, name)(x) for name in names], kernels="c")
    for name, result in zip(names, function(dl.tensor(x)), strict=True):
        exact = REFERENCES[name](x.astype(WIDER[dtype]))
        far = distance(result.numpy(), exact)
        assert far.max() <= TOLERANCE, (name, x[far.argmax()], far.max())
        signed = ~numpy.isnan(exact)
        numpy.testing.assert_array_equal(numpy.signbit(result.numpy()[signed]), numpy.signbit(exact[signed]))
        assert result.dtype == dtype


@numpy.errstate(all="ignore")
def test_powers(a_compiler):
    generator = numpy.random.default_rng(1)
    x, edges = numbers("float32"), numpy.array([*EDGES, *(-x for x in EDGES), -1.5, 3, -3, 1e9], "float32")
    pairs = [
        (x, generator.permutation(x)),
        (x, generator.integers(-9, 9, x.size) / 2),
        (generator.uniform(0.9, 1.1, 50_000), generator.uniform(-800, 800, 50_000)),
        (generator.uniform(0, 20, 50_000), generator.uniform(-30, 30, 50_000)),
        (numpy.repeat(edges, edges.size), numpy.tile(edges, edges.size)),
    ]
    a, b = (numpy.concatenate([p[i].astype("float32") for p in pairs]) for i in (0, 1))
    result = dl.compile(lambda a, b: a**b, kernels="c")(dl.tensor(a), dl.tensor(b)).numpy()
    exact = numpy.power(a.astype("float64"), b.astype("float64"))
    far = distance(result, exact)
    worst = far.argmax()
    assert far[worst] <= 1, (a[worst], b[worst], result[worst], exact[worst])
    signed = ~numpy.isnan(exact)
    numpy.testing.assert_array_equal(numpy.signbit(result[signed]), numpy.signbit(exact[signed]))


@needs_c
@numpy.errstate(all="ignore")
def test_what_is_made_of_them_is_as_near_to_numpy():
    x = numbers("float32")
    x = x[numpy.isfinite(x)]

    def functions(x):
        return [dl.sigmoid(x), dl.softplus(x), dl.gelu(x), dl.silu(x), dl.logaddexp(x, 1.0), dl.elu(x)]

    lost = [0, 0, 5e-7, 0, 0, 0]  # gelu adds 1 to what may be nearly -1
    results = dl.compile(functions, kernels="c")(dl.tensor(x)), functions(x), lost
    for ours, theirs, absolute in zip(*results, strict=True):
        numpy.testing.assert_allclose(ours.numpy(), theirs.numpy(), rtol=2e-6, atol=absolute + 1e-37)


def vectorised_lines(a_compiler, source):
    """Compile a file; return the numbers of the lines where loops were vectorised."""
    version = subprocess.run([*a_compiler.command, "--version"], capture_output=True, text=True).stdout
    report = "-Rpass=loop-vectorize" if "clang" in version else "-fopt-info-vec"
    command = [
        *a_compiler.command,
        *a_compiler.flags,
        report,
        str(source),
        "-o",
        str(source.with_suffix(".so")),
    ]
    told = subprocess.run(command, capture_output=True, text=True, check=True).stderr
    return {int(line) for line in re.findall(rf"{source.name}:(\d+):.*vectorized", told)}


def test_loops_around_them_are_vectorised(a_compiler, tmp_path):
    loops = [
        (f"loop_of_{name}_{kind}", kind, f"{name}(x[i])")
        for kind, names in [("float", REFERENCES), ("double", OF_DOUBLE)]
        for name in names
    ]
    loops.append(("loop_of_powers", "float", "pow(x[i], x[i])"))
    header = c_code._HEADER.partition("typedef struct")[0]
    lines = [
        f"void {name}(int64_t n, {kind} *x, {kind} *y) {{\n INDEPENDENT\n"
        f" for (int64_t i = 0; i < n; i++)\n y[i] = {written}; }}"
        for name, kind, written in loops
    ]
    source = tmp_path / "loops.c"
    source.write_text("\n".join([header, *lines]))
    first = header.count("\n") + 2
    vectorised = vectorised_lines(a_compiler, source)
    for number, (name, _, _) in enumerate(loops):
        line = first + 4 * number + 2
        assert vectorised & {line - 1, line, line + 1}, name


def value_and_gradient(function):
    def both(x, target):
        y = function(x, target)
        return y, dl.grad(y.sum(), x)

    return both


LOGIT_FUNCTIONS = {
    "softplus": lambda x, target: dl.softplus(x),
    "log_sigmoid": lambda x, target: dl.log_sigmoid(x),
    "sigmoid and binary_cross_entropy": lambda x, target: dl.binary_cross_entropy(dl.sigmoid(x), target),
    "gelu": lambda x, target: dl.gelu(x, approximate=True),
    "silu": lambda x, target: dl.silu(x),
}


@pytest.mark.parametrize("name", LOGIT_FUNCTIONS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_groups_of_them_are_vectorised(name, dtype, a_compiler, tmp_path, monkeypatch):
    sources = []
    compiled = kernel_cache._compiled
    monkeypatch.setenv("MINIDL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(kernel_cache, "_compiled", lambda *args: sources.append(args[0]) or compiled(*args))
    x, target = (dl.random.uniform((4, 33), dtype=dtype, generator=dl.Generator(seed)) for seed in (0, 1))
    x.requires_grad = True
    dl.compile(value_and_gradient(LOGIT_FUNCTIONS[name]), kernels="c")(x, target)
    assert len(sources) == 1
    source = tmp_path / "group.c"
    source.write_text(sources[0])
    marks = [
        number for number, line in enumerate(sources[0].splitlines(), 1) if line.strip() == "INDEPENDENT"
    ]
    vectorised = vectorised_lines(a_compiler, source)
    assert marks
    assert all(vectorised & {mark, mark + 1, mark + 2} for mark in marks)
