"""Scripts about floats as arguments, checks of values, and gradients through compiled functions.

They are entered in the tables of law_cases.
"""

import array
import bisect
import contextlib
import copy
import fractions
import functools
import json
import math
import operator
import pickle
import statistics
import struct
import types

import numpy

import minidl as dl
from tests.program.law_cases import CASES, V, X, case, may_be_refused, parameter

NUMBERS = (1.0, 2.0, 0.5, -0.0, -1.5)

#: What is computed with a float argument.
USES = {
    "mul": lambda x, k: x * k,
    "rsub div": lambda x, k: (k - x, x / 2.0 * k, k / x, x - k, k + x, -k * x, abs(k) * x, +k * x),
    "arith": lambda x, k: x * (k * k + 1.0 - k / 3.0),
    "pow": lambda x, k: (x ** (k + 0.5),),
    "npow": lambda x, k: (abs(k) + 1) ** x,
    "kpow": lambda x, k: x * (k**2),
    "kpow2": lambda x, k: x * (2**k),
    "kpowhalf": lambda x, k: x * (abs(k) ** 0.5),
    "floor": lambda x, k: x * (k // 0.3),
    "mod": lambda x, k: x * (k % 0.3),
    "divmod": lambda x, k: x * divmod(k, 0.3)[0],
    "round": lambda x, k: x * round(k),
    "round1": lambda x, k: x * round(k, 1),
    "int": lambda x, k: x * int(k),
    "float": lambda x, k: x * float(k),
    "sqrt": lambda x, k: x * math.sqrt(abs(k)),
    "exp": lambda x, k: x * math.exp(k),
    "npsqrt": lambda x, k: x * float(numpy.sqrt(abs(k))),
    "npexp": lambda x, k: x * numpy.exp(k),
    "npscalar": lambda x, k: x * numpy.float32(k),
    "nparray": lambda x, k: x * dl.tensor(numpy.array([k, 1, 2], "float32")),
    "list": lambda x, k: x * dl.tensor([k, 1.0, 2.0]),
    "tensor": lambda x, k: x * dl.tensor(k),
    "full": lambda x, k: x * dl.full((3,), k),
    "full_like": lambda x, k: x * dl.full_like(x, k),
    "zeros+": lambda x, k: dl.zeros(3) + k,
    "where": lambda x, k: dl.where(x > k, k, x),
    "max": lambda x, k: dl.maximum(x, k),
    "clip": lambda x, k: dl.clip(x, k, 5.0),
    "clip2": lambda x, k: dl.clip(x, -abs(k), abs(k)),
    "pymax": lambda x, k: x * max(k, 0.7),
    "pymin": lambda x, k: x * min(k, 0.7),
    "if": lambda x, k: x if k > 0.7 else -x,
    "eq": lambda x, k: x if k == 0.5 else -x,
    "ne": lambda x, k: x if k != 0.5 else -x,
    "truth": lambda x, k: x if k else -x,
    "or": lambda x, k: x * (k or 7.0),
    "not": lambda x, k: x * (not k),
    "and": lambda x, k: x * (k and 7.0),
    "chain": lambda x, k: x if 0.2 < k <= 1.0 else -x,
    "in": lambda x, k: x if k in (0.5, 2.0) else -x,
    "dict": lambda x, k: x * {1.0: 5.0}.get(k, 9.0),
    "set": lambda x, k: x * len({k, 1.0}),
    "hash": lambda x, k: x * (hash(k) % 5),
    "str": lambda x, k: x * len(str(k)),
    "repr": lambda x, k: x * len(repr(k)),
    "fstr": lambda x, k: x * len(f"{k:.3f}"),
    "fstr2": lambda x, k: x * len(f"{k}"),
    "fstr3": lambda x, k: x * len(f"{k:.3e}"),
    "hex": lambda x, k: x * len(k.hex()),
    "isint": lambda x, k: x if k.is_integer() else -x,
    "ratio": lambda x, k: x * k.as_integer_ratio()[1],
    "real": lambda x, k: x * k.real,
    "imag": lambda x, k: x * (k.imag + 1),
    "conj": lambda x, k: x * k.conjugate(),
    "isinstance": lambda x, k: x if isinstance(k, float) else -x,
    "type": lambda x, k: x if type(k) is float else -x,
    "copysign": lambda x, k: x * math.copysign(1.0, k),
    "isnan": lambda x, k: x if math.isnan(k) else -x,
    "isinf": lambda x, k: x if math.isinf(k) else -x,
    "trunc": lambda x, k: x * math.trunc(k),
    "ceil": lambda x, k: x * math.ceil(k),
    "sum": lambda x, k: x * sum([k, 1.0]),
    "fsum": lambda x, k: x * math.fsum([k, 1.0]),
    "hypot": lambda x, k: x * math.hypot(k, 1.0),
    "sorted": lambda x, k: x * sorted([k, 0.7])[0],
    "np_array_mul": lambda x, k: x * dl.tensor((numpy.arange(3) * k).astype("float32")),
    "np_linspace": lambda x, k: x * dl.tensor(numpy.linspace(0, k, 3, dtype="float32")),
    "linspace": lambda x, k: x * dl.linspace(0.0, k, 3),
    "arange": lambda x, k: dl.arange(0.0, abs(k) + 1, 0.5),
    "logical": lambda x, k: dl.logical_and(x > 1, k),
    "compare": lambda x, k: (x > k, x >= k, x < k, x <= k, x == k, x != k, k < x),
    "nan compare": lambda x, k: (x > k, x == k),
    "int tensor": lambda x, k: dl.tensor([1, 2, 3]) * k,
    "bool tensor": lambda x, k: (x > 1) * k,
    "f16 tensor": lambda x, k: x.astype("float16") * k,
    "f64 tensor": lambda x, k: x.astype("float64") * k,
    "f64 int": lambda x, k: x.astype("int64") * k,
    "rounding": lambda x, k: (x * k, x * (k * 3), x * (k + 1e-8), x / (k + 3)),
    "twice": lambda x, k: x * k + k * x * k,
    "same as const": lambda x, k: x * k + x * 1.0,
    "unused": lambda x, k: x * 2,
    "returned in shape": lambda x, k: x.reshape(1, 3) * k,
    "axis": lambda x, k: x.sum(axis=int(k * 0)),
    "index": lambda x, k: x[int(abs(k)) % 3],
    "range": lambda x, k: sum((x for _ in range(int(abs(k)) + 1)), start=x),
    "kwargs lambda": lambda x, k: (lambda *, a: x * a)(a=k),
    "partial": lambda x, k: functools.partial(dl.multiply, x)(k),
    "default": lambda x, k: (lambda y, a=k: y * a)(x),
    "pad": lambda x, k: dl.pad(x, 1, constant_values=k),
    "leaky": lambda x, k: dl.leaky_relu(x - 2, k),
    "elu": lambda x, k: dl.elu(x - 2, abs(k) + 0.1),
    "huber": lambda x, k: dl.huber(x, x * 0, abs(k) + 0.1),
    "softmax temp": lambda x, k: dl.softmax(x / (abs(k) + 0.1)),
    "nan_to_num": lambda x, k: dl.nan_to_num(x, nan=k),
    "isclose": lambda x, k: dl.isclose(x, x + 1e-6, atol=abs(k)),
    "one_hot": lambda x, k: dl.one_hot(dl.tensor([1, 2]), 3) * k,
    "eye": lambda x, k: dl.eye(3) * k @ x,
    "complex": lambda x, k: x * abs(k * 1j),
    "json": lambda x, k: x * json.loads(json.dumps({"k": k}))["k"],
    "pickle": lambda x, k: x * pickle.loads(pickle.dumps(k)),
    "copy": lambda x, k: x * copy.deepcopy(k),
    "fractions": lambda x, k: x * float(fractions.Fraction(k)),
    "struct": lambda x, k: x * struct.unpack("d", struct.pack("d", k))[0],
    "array": lambda x, k: x * array.array("d", [k])[0],
    "statistics": lambda x, k: x * statistics.mean([k, 1.0]),
    "operator": lambda x, k: x * operator.mul(k, 2.0) * operator.gt(k, 0.7),
    "bool()": lambda x, k: x * bool(k),
    "float.fromhex": lambda x, k: x * float.__mul__(k, 2.0),
    "float.__gt__": lambda x, k: x if float.__gt__(k, 0.7) else -x,
    "float.__int__": lambda x, k: x * float.__int__(k),
    "float.__round__": lambda x, k: x * float.__round__(k),
    "math.log2": lambda x, k: x * math.log2(abs(k) + 1),
    "numpy.maximum": lambda x, k: x * numpy.maximum(k, 0.7),
    "numpy.where": lambda x, k: (
        x * dl.tensor(numpy.where(numpy.array([True, False, True]), k, 1.0).astype("float32"))
    ),
    "numpy.asarray": lambda x, k: x * float(numpy.asarray(k)),
    "numpy.full": lambda x, k: x * dl.tensor(numpy.full(3, k, "float32")),
    "numpy.isclose": lambda x, k: x * float(numpy.isclose(k, 0.5)),
    "format()": lambda x, k: x * float(format(k, ".2f")),
    "bisect": lambda x, k: x * bisect.bisect([0.1, 0.7, 1.5], k),
    "walrus": lambda x, k: x * (y if (y := k) > 0.7 else 3.0),
    "ternary late": lambda x, k: x * k if k * 2 > 1.1 else x * k * k,
}


def used(use, numbers):
    """Return the script that calls a function with several numbers; some of them may be errors in Python."""

    def script(world):
        step = world.compile(use)
        for number in numbers:
            try:
                step(V, number)
            except (ValueError, ZeroDivisionError, OverflowError, TypeError) as error:
                world.note(type(error).__name__)

    return script


for name, use in USES.items():
    CASES[f"float, {name}"] = used(use, NUMBERS)


@case
def number_into_attribute(world):
    class L(dl.Layer):
        def __init__(self):
            self.k = 0.0

        def forward(self, x, k):
            self.k = k
            return x * 2

    layer = world.watch(L())
    step = world.compile(lambda x, k: layer.forward(x, k))
    for k in NUMBERS:
        step(V, k)


@case
def number_into_attribute_read(world):
    class L(dl.Layer):
        def __init__(self):
            self.k = 0.0

        def forward(self, x, k):
            y = x * self.k
            self.k = k
            return y

    layer = world.watch(L())
    step = world.compile(lambda x, k: layer.forward(x, k))
    for k in NUMBERS:
        step(V, k)


@case
def number_into_learning_rate(world):
    p = parameter()
    thing = dl.SGD([p], 0.1)
    world.watch(p, thing)

    def f(x, k):
        thing.learning_rate = abs(k)
        (p * x).sum().backward()
        thing.step()

    step = world.compile(f)
    for k in NUMBERS:
        step(V, k)


@case
def number_into_list(world):
    values = []
    step = world.compile(lambda x, k: (values.append(k), x * k)[1])
    world.watch(values)
    for k in NUMBERS:
        step(V, k)


@case
def number_into_namespace(world):
    values = types.SimpleNamespace(k=0.0)

    def f(x, k):
        values.k = k
        return x * k

    step = world.compile(f)
    world.watch(values)
    for k in NUMBERS:
        step(V, k)


@case
def number_into_parameter_factor(world):
    p = parameter()
    thing = dl.SGD([p], 0.1)
    world.watch(p, thing)

    def f(x, k):
        p.learning_rate_factor = abs(k)
        (p * x).sum().backward()
        thing.step()

    step = world.compile(f)
    for k in NUMBERS:
        step(V, k)


@case
def numbers_in_nests(world):
    step = world.compile(lambda x, d: x * d["a"][0] + d["b"])
    for k in NUMBERS:
        step(V, {"a": (k, 1), "b": k + 1})


@case
def numbers_two_same(world):
    step = world.compile(lambda x, a, b: x * a - b if a == b else x * a + b)
    step(V, 1.0, 1.0)
    step(V, 1.0, 2.0)
    step(V, 3.0, 3.0)
    step(V, 3.0, 4.0)


@case
def number_then_int_then_bool(world):
    step = world.compile(lambda x, k: x * k + (1 if isinstance(k, int) else 0))
    step(V, 1.0)
    step(V, 1)
    step(V, True)
    step(V, numpy.float64(1))
    step(V, numpy.float32(1))
    step(V, 1.0)


@case
def number_np_float64_dtype(world):
    step = world.compile(lambda x, k: dl.tensor(numpy.arange(3) * k))
    step(V, numpy.float64(2))
    step(V, numpy.float32(2))
    step(V, 2.0)


@case
def number_gradients(world):
    p = world.watch(parameter())
    step = world.compile(lambda x, k: (p * p * x * k).sum().backward())
    for k in NUMBERS:
        step(V, k)


@case
def number_two_functions(world):
    f = lambda x, k: x * k
    a, b = world.compile(f), world.compile(f)
    for k in NUMBERS:
        a(V, k)
        b(V, k * 2)


@case
def number_keyword(world):
    step = world.compile(lambda x, *, k=1.0: x * k)
    step(V)
    for k in NUMBERS:
        step(V, k=k)


@case
def number_default_changes(world):
    def f(x, k=2.0):
        return x * k

    step = world.compile(f)
    step(V)
    step(V, 3.0)
    f.__defaults__ = (5.0,)
    step(V)


@case
def number_cached(world):
    @functools.lru_cache
    def g(k):
        return k * 2

    step = world.compile(lambda x, k: x * g(k))
    for k in NUMBERS:
        step(V, k)


@case
def number_closure_cell(world):
    last = [0.0]

    def f(x, k):
        y = x * last[0]
        last[0] = k
        return y

    step = world.compile(f)
    for k in NUMBERS:
        step(V, k)


@case
def checks_repeat_bce(world):
    step = world.compile(lambda p, t: dl.binary_cross_entropy(p, t))
    p = dl.tensor([0.5, 0.5])
    step(p, dl.tensor([0.0, 1.0]))
    step(p, dl.tensor([1.0, 1.0]))
    for t in ([255.0, 1.0], [-1.0, 0.0], [math.nan, 0.0]):
        with contextlib.suppress(ValueError):
            step(p, dl.tensor(t))


@case
def checks_repeat_labels(world):
    step = world.compile(lambda p, t: dl.softmax_cross_entropy(p, t))
    p = dl.ones((2, 3))
    for t in ([0, 2], [0, 3], [-1, 0], [1, 1]):
        with contextlib.suppress(ValueError, IndexError):
            step(p, dl.tensor(t))


@case
def checks_state_after(world):
    p = world.watch(dl.Parameter(dl.ones((2, 3))))
    thing = world.watch(dl.SGD([p], 0.1))
    g = world.watch(dl.Generator(0))

    def f(t):
        n = dl.random.normal((2, 3), generator=g)
        layer = dl.softmax_cross_entropy(p + n, t)
        layer.backward()
        thing.step()
        return layer

    step = world.compile(f)
    step(dl.tensor([0, 2]))
    if world.options is not None:
        with contextlib.suppress(ValueError, IndexError):
            step(dl.tensor([0, 3]))
    else:
        world.log.append("ValueError")
    step(dl.tensor([0, 1]))


@case
def grad_through_compiled_twice(world):
    p = world.watch(parameter())
    f = world.compile(lambda x: p * x * x)
    x = dl.tensor([1.0, 2.0, 3.0], requires_grad=True)
    world.watch(x)
    for _i in range(3):
        (f(x) * f(x * 2)).sum().backward()
        world.note(p, x)


@case
def grad_through_stale(world):
    p = world.watch(parameter())
    f = world.compile(lambda x: p * p * x)
    y = f(V)
    y2 = f(V * 3)
    y.sum().backward()
    world.note(p)
    y2.sum().backward()
    world.note(p)


@may_be_refused
def grad_through_after_assign(world):
    p = world.watch(parameter())
    f = world.compile(lambda x: p * p * x)
    y = f(V)
    p.assign(p * 2)
    with contextlib.suppress(RuntimeError):
        y.sum().backward()
    world.note(p)


@may_be_refused
def grad_through_with_state_update(world):
    p = world.watch(parameter())
    m = world.watch(dl.zeros(3))

    def g(x):
        m.assign(m * 0.5 + x.detach())
        return p * x + m

    f = world.compile(g)
    x = dl.tensor([1.0, 2.0, 3.0], requires_grad=True)
    world.watch(x)
    for _ in range(3):
        f(x).sum().backward()
        world.note(p, x)


@may_be_refused
def grad_through_dropout(world):
    layer = world.watch(dl.Network([dl.Dense(3, 3, seed=0), dl.Dropout(0.5, seed=1)]))
    f = world.compile(lambda x: layer(x))
    for _ in range(3):
        (f(X) ** 2).sum().backward()
        world.note(layer)


@may_be_refused
def grad_through_batchnorm(world):
    layer = world.watch(dl.Network([dl.Dense(3, 3, seed=0), dl.BatchNorm(3)]))
    f = world.compile(lambda x: layer(x))
    for _ in range(3):
        (f(X) ** 2).sum().backward()
        world.note(layer)


@may_be_refused
def second_grad_through(world):
    f = world.compile(lambda x: x * x * x)
    x = dl.tensor([1.0, 2.0, 3.0], requires_grad=True)
    g = dl.grad(f(x).sum(), x, create_graph=True)
    world.note(dl.grad((g * g).sum(), x))


@may_be_refused
def grad_several_results(world):
    f = world.compile(lambda x: (x * x, {"a": x * 3}, x.detach()))
    x = world.watch(dl.tensor([1.0, 2.0, 3.0], requires_grad=True))
    a, b, c = f(x)
    (a.sum() + b["a"].sum() + c.sum()).backward()
    world.note(x, c.requires_grad, a.requires_grad)
    a, b, c = f(x)
    b["a"].sum().backward()
    world.note(x)


@may_be_refused
def grad_with_number(world):
    f = world.compile(lambda x, k: x * x * k)
    x = world.watch(dl.tensor([1.0, 2.0, 3.0], requires_grad=True))
    for k in NUMBERS:
        f(x, k).sum().backward()
        world.note(x)


@may_be_refused
def grad_retain(world):
    f = world.compile(lambda x: x * x)
    x = world.watch(dl.tensor([1.0, 2.0, 3.0], requires_grad=True))
    y = f(x).sum()
    y.backward(retain_graph=True)
    y.backward()
    world.note(x)
    try:
        y.backward()
    except RuntimeError:
        world.note("again")


@may_be_refused
def grad_results_in_step(world):
    p = parameter()
    thing = dl.SGD([p], 0.1)
    world.watch(p, thing)
    f = world.compile(lambda x: (p * x).sum())
    for _ in range(3):
        layer = f(V)
        layer.backward()
        thing.step()
        world.note(p)


@may_be_refused
def views_returned_with_grad(world):
    p = world.watch(parameter())
    f = world.compile(lambda: p[1:])
    f().sum().backward()
    world.note(p)


@may_be_refused
def frozen_later_through(world):
    p = world.watch(parameter())
    f = world.compile(lambda x: p * x)
    f(V).sum().backward()
    p.requires_grad = False
    y = f(V)
    world.note(y.requires_grad)
    p.requires_grad = True
    f(V).sum().backward()
    world.note(p)
