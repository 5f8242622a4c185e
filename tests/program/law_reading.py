"""Scripts about what Python code can read, and how: the standard library, arguments, classes, counters.

They are entered in the tables of law_cases.
"""

import abc
import argparse
import collections
import configparser
import contextlib
import contextvars
import copy
import dataclasses
import decimal
import enum
import fractions
import functools
import importlib
import json
import logging
import math
import operator
import os
import random
import sys
import threading
import types
import typing
import weakref

import numpy

import minidl as dl
from minidl.layers.layer import layer_hook as hook
from tests.program.law_cases import (
    DATA,
    Trouble,
    V,
    X,
    case,
    fitted,
    make_step,
    may_be_refused,
    parameter,
    trainer,
)
from tests.program.law_values import user_module


@case
def environment_variable(world):
    os.environ["LAW"] = "2"
    step = world.compile(lambda x: x * float(os.environ["LAW"]))
    step(V)
    os.environ["LAW"] = "3"
    step(V)
    del os.environ["LAW"]


@case
def context_variable(world):
    c = contextvars.ContextVar("c", default=2.0)
    step = world.compile(lambda x: x * c.get())
    step(V)
    t = c.set(3.0)
    step(V)
    c.reset(t)


@case
def weak_set(world):
    class Thing:
        pass

    thing = Thing()
    thing.scale = 2.0
    r = weakref.WeakSet([thing])
    step = world.compile(lambda x: x * sum(i.scale for i in r))
    step(V)
    thing.scale = 3.0
    step(V)
    p = Thing()
    p.scale = 1.0
    r.add(p)
    step(V)


@case
def weak_value_dict(world):
    class Thing:
        pass

    thing = Thing()
    thing.scale = 2.0
    r = weakref.WeakValueDictionary(a=thing)
    step = world.compile(lambda x: x * r["a"].scale)
    step(V)
    thing.scale = 3.0
    step(V)


@case
def view_of_a_dict(world):
    d = {"a": 2.0}
    v = d.values()
    step = world.compile(lambda x: x * sum(v))
    step(V)
    d["b"] = 3.0
    step(V)


@case
def items_of_a_dict(world):
    d = {"a": 2.0}
    v = d.items()
    step = world.compile(lambda x: x * sum(b for a, b in v))
    step(V)
    d["b"] = 3.0
    step(V)


@case
def thread_local(world):
    t = threading.local()
    t.scale = 2.0
    step = world.compile(lambda x: x * t.scale)
    step(V)
    t.scale = 3.0
    step(V)


@case
def attrgetter_outside(world):
    g = operator.attrgetter("scale")
    thing = types.SimpleNamespace(scale=2.0)
    step = world.compile(lambda x: x * g(thing))
    step(V)
    thing.scale = 3.0
    step(V)


# --- what Python and libraries answer without reading a name of the user's -------------------------


@contextlib.contextmanager
def other_value(owner, name, value):
    """Set an attribute of something shared, and put the old value back."""
    before = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, before)


@case
def attribute_of_a_module_of_python(world):
    step = world.compile(lambda x: x * math.tau)
    step(V)
    with other_value(math, "tau", 7.0):
        step(V)


@case
def attribute_of_a_library(world):
    step = world.compile(lambda x: x * numpy.pi)
    step(V)
    with other_value(numpy, "pi", 7.0):
        step(V)


@case
def arguments_of_the_process(world):
    step = world.compile(lambda x: x * len(sys.argv))
    step(V)
    with other_value(sys, "argv", [*sys.argv, "another"]):
        step(V)
    sys.argv.append("another")
    step(V)
    sys.argv.pop()


@case
def attribute_of_an_object_of_a_library(world):
    log = logging.getLogger("minidl.tests.law")
    log.setLevel(logging.DEBUG)
    step = world.compile(lambda x: x * (2 if log.isEnabledFor(logging.INFO) else 3))
    step(V)
    log.setLevel(logging.ERROR)
    step(V)


@case
def decimal_context(world):
    step = world.compile(lambda x: x * float(decimal.Decimal(1) / decimal.Decimal(3)))
    step(V)
    with decimal.localcontext() as context:
        context.prec = 2
        step(V)


@case
def floating_point_errors(world):
    step = world.compile(lambda x: x * (2 if numpy.geterr()["divide"] == "warn" else 3))
    step(V)
    with numpy.errstate(divide="ignore"):
        step(V)


@case
def recursion_limit(world):
    step = world.compile(lambda x: x * sys.getrecursionlimit())
    step(V)
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(limit + 5)
    try:
        step(V)
    finally:
        sys.setrecursionlimit(limit)


@case
def current_folder(world):
    step = world.compile(lambda x: x * len(os.getcwd()))
    step(V)
    with contextlib.chdir("/"):
        step(V)


@case
def name_of_the_thread(world):
    step = world.compile(lambda x: x * len(threading.current_thread().name))
    step(V)
    with other_value(threading.current_thread(), "name", "a much longer name"):
        step(V)


@case
def class_registered_with_an_abstract_one(world):
    class Scaled(abc.ABC):  # noqa: B024
        pass

    class Thing:
        pass

    thing = Thing()
    step = world.compile(lambda x: x * (2 if isinstance(thing, Scaled) else 3))
    step(V)
    Scaled.register(Thing)
    step(V)


@case
def getattr_of_an_object(world):
    store = {"scale": 2.0}

    class Thing:
        def __getattr__(self, name):
            return store[name]

    thing = Thing()
    step = world.compile(lambda x: x * thing.scale)
    step(V)
    store["scale"] = 3.0
    step(V)


@case
def namespace_as_text(world):
    thing = types.SimpleNamespace(scale=2.0)
    step = world.compile(lambda x: x * len(f"{thing}"))
    step(V)
    thing.scale = 3.25
    step(V)


@case
def namespaces_that_are_equal(world):
    a, b = types.SimpleNamespace(scale=2.0), types.SimpleNamespace(scale=2.0)
    step = world.compile(lambda x: x * (5 if a == b else 7))
    step(V)
    b.scale = 3.0
    step(V)


@case
def bases_of_a_class(world):
    class Two:
        def scale(self):
            return 2.0

    class Three:
        def scale(self):
            return 3.0

    class Thing(Two):
        pass

    thing = Thing()
    step = world.compile(lambda x: x * thing.scale())
    step(V)
    Thing.__bases__ = (Three,)
    step(V)


@case
def class_of_an_object(world):
    class Two:
        def scale(self):
            return 2.0

    class Three:
        def scale(self):
            return 3.0

    thing = Two()
    step = world.compile(lambda x: x * thing.scale())
    step(V)
    thing.__class__ = Three
    step(V)


@case
def requires_grad_set_inside(world):
    w = dl.Parameter([1.0, 2.0, 3.0])

    def step(x):
        w.requires_grad = False
        return x * w

    world.watch(w)
    step = world.compile(step)
    for _ in range(5):
        step(V)
    world.note(w.requires_grad)


@case
def learning_rate_factor_set_inside(world):
    w = dl.Parameter([1.0, 2.0, 3.0])

    def step(x):
        w.learning_rate_factor = w.learning_rate_factor / 2
        return x * w

    step = world.compile(step)
    for _ in range(5):
        step(V)
    world.note(w.learning_rate_factor)


@case
def methodcaller_outside(world):
    class Thing:
        def __init__(self):
            self.scale = 2.0

        def get(self):
            return self.scale

    g = operator.methodcaller("get")
    thing = Thing()
    step = world.compile(lambda x: x * g(thing))
    step(V)
    thing.scale = 3.0
    step(V)


@case
def itemgetter_outside(world):
    g = operator.itemgetter("a")
    d = {"a": 2.0}
    step = world.compile(lambda x: x * g(d))
    step(V)
    d["a"] = 3.0
    step(V)


@case
def missing_global(world):
    m = user_module("missing", "def f(x):\n    try: return x*SCALE\n    except NameError: return x*5")
    step = world.compile(m.f)
    step(V)
    m.SCALE = 3.0
    step(V)
    del m.SCALE
    step(V)


@case
def shadowed_builtin(world):
    m = user_module("shadow", "def f(x): return x*max(1.0,2.0)")
    step = world.compile(m.f)
    step(V)
    m.max = lambda a, b: 7.0
    step(V)


@case
def patched_minidl(world):
    step = world.compile(lambda x: dl.relu(x))
    step(V - 2)
    old = dl.relu
    try:
        dl.relu = dl.tanh
        step(V - 2)
    finally:
        dl.relu = old


@case
def patched_layer_class(world):
    layer = dl.ReLU()
    step = world.compile(lambda x: layer(x))
    step(V - 2)
    old = dl.ReLU.forward
    try:
        dl.ReLU.forward = lambda self, x: x * 2
        step(V - 2)
    finally:
        dl.ReLU.forward = old


@case
def patched_layer_call(world):
    layer = dl.ReLU()
    step = world.compile(lambda x: layer(x))
    step(V - 2)
    old = dl.Layer.__call__
    try:
        dl.Layer.__call__ = lambda self, x: x * 2
        step(V - 2)
    finally:
        dl.Layer.__call__ = old


@case
def class_default_training(world):
    layer = dl.Dropout(0.5, seed=1)
    step = world.compile(lambda x: layer(x))
    step(V)
    try:
        dl.Layer.training = False
        step(V)
    finally:
        dl.Layer.training = True


@case
def optimizer_update_patched(world):
    p = parameter()
    thing = dl.SGD([p], 0.1)
    step = make_step(world, p, thing)
    step(V)
    old = dl.SGD.update
    try:
        dl.SGD.update = lambda self, parameter, gradient, rate, **k: parameter.assign(parameter - 1.0)
        step(V)
    finally:
        dl.SGD.update = old


@case
def layer_hook(world):
    layer = dl.ReLU()
    step = world.compile(lambda x: layer(x))
    step(V - 2)
    with hook(lambda layer, inputs: layer.forward(*inputs) * 2):
        step(V - 2)
    step(V - 2)


@case
def default_generator_seeded(world):
    step = world.compile(lambda x: x + dl.random.uniform((3,)))
    for i in range(3):
        dl.random.seed(i)
        step(V)
        step(V)


@may_be_refused
def generator_made_inside(world):
    step = world.compile(lambda x: x + dl.random.uniform((3,), generator=dl.Generator(3)))
    step(V)
    step(V)


@case
def permutation_inside(world):
    g = dl.Generator(1)
    step = world.compile(lambda x: x[dl.random.permutation(3, generator=g)])
    step(V)
    step(V)


@case
def dropout_shared_generator(world):
    g = dl.Generator(1)
    n = dl.Network([dl.Dropout(0.5, seed=g), dl.Dropout(0.3, seed=g)])
    step = world.compile(lambda x: n(x))
    t = world.compile(lambda x: n[0](x))
    for _ in range(3):
        step(X)
        t(X)


@may_be_refused
def generator_numpy_read(world):
    g = dl.Generator(1)
    step = world.compile(lambda x: x * float(g.numpy.random()))
    step(V)
    step(V)


@case
def layer_made_inside(world):
    def f(x):
        return dl.Dense(3, 2, seed=1)(x)

    step = world.compile(f)
    step(X)
    step(X)


@case
def frozen_object_setattr(world):
    @dataclasses.dataclass(frozen=True)
    class Thing:
        scale: float = 2.0

    thing = Thing()
    step = world.compile(lambda x: x * thing.scale)
    step(V)
    object.__setattr__(thing, "scale", 3.0)
    step(V)


@case
def metaclass_attribute(world):
    class M(type):
        scale = 2.0

    class Thing(metaclass=M):
        pass

    step = world.compile(lambda x: x * Thing.scale)
    step(V)
    M.scale = 3.0
    step(V)


@case
def descriptor(world):
    class D:
        def __init__(self):
            self.v = 2.0

        def __get__(self, thing, k):
            return self.v

    d = D()

    class Thing:
        scale = d

    thing = Thing()
    step = world.compile(lambda x: x * thing.scale)
    step(V)
    d.v = 3.0
    step(V)


@case
def classmethod_state(world):
    class Thing:
        v = 2.0

        @classmethod
        def get(cls):
            return cls.v

    step = world.compile(lambda x: x * Thing.get())
    step(V)
    Thing.v = 3.0
    step(V)


@case
def staticmethod_closure(world):
    v = [2.0]

    class Thing:
        @staticmethod
        def get():
            return v[0]

    step = world.compile(lambda x: x * Thing.get())
    step(V)
    v[0] = 3.0
    step(V)


@case
def singledispatch(world):
    @functools.singledispatch
    def scale(a):
        return 2.0

    step = world.compile(lambda x: x * scale(1))
    step(V)
    scale.register(int, lambda a: 3.0)
    step(V)


@case
def lru_cache_cleared(world):
    v = types.SimpleNamespace(n=2.0)

    @functools.lru_cache
    def scale():
        return v.n

    step = world.compile(lambda x: x * scale())
    step(V)
    v.n = 3.0
    step(V)
    scale.cache_clear()
    step(V)


@case
def dict_cached_tensor(world):
    cache = {}

    def mask(n):
        if n not in cache:
            cache[n] = dl.ones((n,)) * 2
        return cache[n]

    step = world.compile(lambda x: x * mask(3))
    step(V)
    step(V)
    world.note(mask(3))
    step(V)
    step(V)
    step(V)


@case
def layer_cached_tensor(world):
    class L(dl.Layer):
        def __init__(self):
            self.mask = None

        def forward(self, x):
            if self.mask is None:
                self.mask = dl.ones((3,)) * 2
            return x * self.mask

    layer = L()
    step = world.compile(lambda x: layer(x))
    step(V)
    step(V)
    world.note(layer.mask)
    step(V)
    layer.mask = None
    step(V)
    world.note(layer.mask)


@case
def layer_cached_dict(world):
    class L(dl.Layer):
        def __init__(self):
            self.masks = {}

        def forward(self, x):
            n = x.shape[0]
            if n not in self.masks:
                self.masks[n] = dl.ones((n, 1)) * 2
            return x * self.masks[n]

    layer = L()
    step = world.compile(lambda x: layer(x))
    step(V)
    step(V)
    step(X)
    step(X)
    step(V)
    world.note(layer.masks)


@case
def unguarded_library_object_fraction(world):
    b = {"f": fractions.Fraction(2)}
    step = world.compile(lambda x: x * float(b["f"]))
    step(V)
    b["f"] = fractions.Fraction(3)
    step(V)


@case
def logger_level(world):
    values = logging.getLogger("law")
    values.setLevel(10)
    step = world.compile(lambda x: x * values.level)
    step(V)
    values.setLevel(20)
    step(V)


@case
def argparse_namespace(world):
    a = argparse.Namespace(scale=2.0)
    step = world.compile(lambda x: x * a.scale)
    step(V)
    a.scale = 3.0
    step(V)


@case
def config_parser(world):
    a = configparser.ConfigParser()
    a["a"] = {"s": "2.0"}
    step = world.compile(lambda x: x * a.getfloat("a", "s"))
    step(V)
    a["a"]["s"] = "3.0"
    step(V)


@case
def deque_popped(world):
    q = collections.deque([1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0])
    step = world.compile(lambda x: x * q.popleft())
    [step(V) for _ in range(6)]


@case
def list_popped(world):
    q = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0]
    step = world.compile(lambda x: x * q.pop())
    [step(V) for _ in range(6)]


@case
def array_written_inside(world):
    a = numpy.zeros(3, "float32")

    def f(x):
        a[0] += 1
        return x * float(a[0])

    world.watch(a)
    step = world.compile(f)
    [step(V) for _ in range(6)]


@case
def array_written_not_read(world):
    a = numpy.zeros(3, "float32")

    def f(x):
        a[0] = 5
        return x * 2

    world.watch(a)
    step = world.compile(f)
    step(V)
    a[0] = 0
    step(V)
    a[0] = 0
    step(V)
    a[0] = 0
    step(V)
    a[0] = 0
    step(V)


@case
def constant_global_flag_set(world):
    n = types.SimpleNamespace(seen=False)

    def f(x):
        n.seen = True
        return x * 2

    world.watch(n)
    step = world.compile(f)
    step(V)
    n.seen = False
    step(V)
    n.seen = False
    step(V)
    n.seen = False
    step(V)
    n.seen = False
    step(V)


@case
def list_reset_inside(world):
    values = []

    def f(x):
        values.clear()
        values.append(x.shape)
        return x * 2

    world.watch(values)
    step = world.compile(f)
    step(V)
    values.clear()
    step(V)
    step(X)
    step(V)


@case
def default_dict_grows(world):
    d = collections.defaultdict(lambda: 2.0)
    step = world.compile(lambda x: x * d["k"])
    world.watch(d)
    step(V)
    step(V)
    d["k"] = 5.0
    step(V)


@case
def argument_object(world):
    thing = types.SimpleNamespace(scale=2.0)
    step = world.compile(lambda x, thing: x * thing.scale)
    step(V, thing)
    thing.scale = 3.0
    step(V, thing)
    step(V, types.SimpleNamespace(scale=5.0))


@case
def argument_layer(world):
    layer = dl.Dense(3, 2, seed=1)
    k = dl.Dense(3, 2, seed=2)
    step = world.compile(lambda x, layer: layer(x))
    step(X, layer)
    step(X, k)
    layer.weight = dl.Parameter(dl.ones((3, 2)))
    step(X, layer)


@case
def argument_list_of_objects(world):
    thing = [types.SimpleNamespace(scale=2.0)]
    step = world.compile(lambda x, thing: x * thing[0].scale)
    step(V, thing)
    thing[0].scale = 3.0
    step(V, thing)


@case
def argument_generator(world):
    step = world.compile(lambda x, g: x + dl.random.uniform((3,), generator=g))
    a, b = dl.Generator(1), dl.Generator(2)
    for _ in range(2):
        step(V, a)
        step(V, b)


@may_be_refused
def argument_numpy_generator(world):
    g = numpy.random.default_rng(0)
    step = world.compile(lambda x, g: x + g.random())
    step(V, g)
    step(V, g)


@may_be_refused
def argument_iterator(world):
    it = iter([1.0, 2.0, 3.0, 4.0, 5.0])
    step = world.compile(lambda x, i: x * next(i))
    step(V, it)
    step(V, it)


@case
def argument_function(world):
    step = world.compile(lambda x, f: f(x))
    step(V, lambda x: x * 2)
    step(V, lambda x: x * 3)
    v = [2.0]
    f = lambda x: x * v[0]
    step(V, f)
    v[0] = 4.0
    step(V, f)


@case
def argument_set(world):
    step = world.compile(lambda x, f: x * sum(f))
    k = {1.0, 2.0}
    step(V, k)
    k.add(3.0)
    step(V, k)


@case
def argument_bytearray(world):
    k = bytearray(b"\1\2")
    step = world.compile(lambda x, f: x * f[0])
    step(V, k)
    k[0] = 7
    step(V, k)


@case
def argument_dataclass(world):
    @dataclasses.dataclass
    class A:
        scale: float

    step = world.compile(lambda x, a: x * a.scale)
    a = A(2.0)
    step(V, a)
    a.scale = 3.0
    step(V, a)
    step(V, A(4.0))


@case
def argument_dataclass_with_tensor(world):
    @dataclasses.dataclass
    class A:
        x: typing.Any

    step = world.compile(lambda a: a.x * 2)
    a = A(V)
    step(a)
    a.x = V * 3
    step(a)
    step(A(V * 4))
    a.x = X
    step(a)


@case
def argument_namedtuple(world):
    Special = collections.namedtuple("Special", "a b")
    step = world.compile(lambda p: p.a * p.b)
    step(Special(V, 2.0))
    step(Special(V, 3.0))
    step(Special(b=V, a=2.0))


@case
def argument_dict_order(world):
    step = world.compile(lambda d: next(iter(d.values())) * 2)
    step({"a": V, "b": V * 3})
    step({"b": V * 3, "a": V})


@case
def float_subclass_attribute(world):
    class F(float):
        pass

    f = F(1.0)
    f.k = 2.0
    step = world.compile(lambda x: x * f.k)
    step(V)
    f.k = 3.0
    step(V)


@case
def enum_attribute(world):
    class E(enum.Enum):
        A = [1.0]  # noqa: RUF012

    step = world.compile(lambda x: x * len(E.A.value))
    step(V)
    E.A.value.append(2.0)
    step(V)


@case
def enum_member_guard(world):
    class E(enum.Enum):
        A = [1.0]  # noqa: RUF012

    m = E.A
    step = world.compile(lambda x: x * len(m.value))
    step(V)
    m.value.append(2.0)
    step(V)


@case
def int_keys_bool(world):
    step = world.compile(lambda x, k: x * (2 if k is True else 3))
    step(V, True)
    step(V, 1)
    step(V, 1.0)
    step(V, numpy.True_)


@case
def scalar_tensor_types(world):
    step = world.compile(lambda x, k: dl.tensor([1, 2]) * k)
    step(V, 2)
    step(V, 2.0)
    step(V, True)
    step(V, numpy.float32(2))
    step(V, numpy.int8(2))


@case
def none_argument(world):
    step = world.compile(lambda x, y=None: x if y is None else x * y)
    step(V)
    step(V, V)
    step(V, y=V)
    step(V, None)


@case
def nan_argument(world):
    step = world.compile(lambda x, k: x * k)
    step(V, math.nan)
    step(V, math.inf)
    step(V, -math.inf)
    step(V, -0.0)
    step(V, 0.0)


@case
def many_floats(world):
    step = world.compile(lambda x, k: x * k)
    for i in range(20):
        step(V, i / 7)


@case
def float_that_decides(world):
    step = world.compile(lambda x, k: x * k if k > 0.5 else x - k)
    for i in range(6):
        step(V, i / 5)


@case
def int_as_axis(world):
    step = world.compile(lambda x, k: x.sum(axis=k))
    for i in (0, 1, 0, -1):
        step(X, i)


@case
def int_as_power(world):
    step = world.compile(lambda x, k: x**k)
    for i in (0, 1, 2, 3, 2.0, 0.5):
        step(V, i)


@case
def float_as_attribute(world):
    step = world.compile(lambda x, k: dl.clip(x, -k, k))
    for i in (1.0, 2.0, 0.5):
        step(V, i)


@case
def float_compared(world):
    step = world.compile(lambda x, k: dl.where(x > k, x, -x))
    for i in (1.0, 2.0, 0.5):
        step(V, i)


@case
def float_hash(world):
    step = world.compile(lambda x, k: x * {1.0: 5.0, 2.0: 6.0}.get(k, 7.0))
    for i in (1.0, 2.0, 0.5):
        step(V, i)


@case
def int_precision(world):
    step = world.compile(lambda x, k: (dl.tensor([1, 2]) * k, x * k))
    for i in (2, 2**24 + 1, 2**40, -3):
        step(V, i)


@case
def float_returned_shape(world):
    step = world.compile(lambda x, k: dl.full((int(k),), k))
    for i in (1.0, 2.0, 3.0):
        step(V, i)


@case
def float64_tensor(world):
    step = world.compile(lambda x: x * 2.5)
    step(V.astype("float64"))
    step(V)
    step(V.astype("float16"))
    step(V.astype("int64"))
    step(V > 1)


@case
def strides_of_args(world):
    step = world.compile(lambda x: x * 2)
    step(X)
    step(X.T)
    step(X[:, ::-1])
    step(X[::-1])


@case
def requires_grad_argument(world):
    step = world.compile(lambda x: x * 2 if x.requires_grad else x * 3)
    step(V)
    step(dl.tensor([1.0, 2.0, 3.0], requires_grad=True))
    step(V)


@case
def requires_grad_of_outside_tensor(world):
    t = dl.tensor([1.0, 2.0, 3.0])
    step = world.compile(lambda x: x * t * 2 if t.requires_grad else x * t * 3)
    step(V)
    t.requires_grad = True
    step(V)
    t.requires_grad = False
    step(V)


@case
def requires_grad_not_used_tensor(world):
    t = dl.tensor([1.0, 2.0, 3.0])
    step = world.compile(lambda x: x * 2 if t.requires_grad else x * 3)
    step(V)
    t.requires_grad = True
    step(V)


@case
def requires_grad_not_used_parameter(world):
    t = parameter()
    step = world.compile(lambda x: x * 2 if t.requires_grad else x * 3)
    step(V)
    t.requires_grad = False
    step(V)


@case
def shape_not_used_tensor(world):
    t = dl.tensor([1.0, 2.0, 3.0])
    step = world.compile(lambda x: x * t.shape[0])
    step(V)
    t.data = numpy.ones(5, "float32")
    step(V)


@case
def shape_not_used_parameter(world):
    t = parameter()
    step = world.compile(lambda x: x * t.size)
    step(V)
    t.data = numpy.ones(5, "float32")
    step(V)


@case
def dtype_not_used_tensor(world):
    t = dl.tensor([1.0, 2.0, 3.0])
    step = world.compile(lambda x: x.astype(t.dtype))
    step(V)
    t.data = numpy.ones(5, "float64")
    step(V)


@case
def zeros_like_of_outside(world):
    t = dl.tensor([1.0, 2.0, 3.0])
    step = world.compile(lambda x: x + dl.zeros_like(t))
    step(V)
    t.data = numpy.ones(1, "float64")
    step(V)


@case
def layer_shape_arithmetic(world):
    layer = dl.Dense(3, 2, seed=0)
    step = world.compile(lambda x: x * layer.weight.shape[1])
    step(V)
    layer.weight.data = numpy.ones((3, 5), "float32")
    step(V)


@case
def l2_factor_read_by_code(world):
    t = parameter()
    step = world.compile(lambda x: x * t.l2_factor)
    step(V)
    t.l2_factor = 4.0
    step(V)
    t.l2_factor = numpy.float64(5)
    step(V)


@case
def grad_none_check_not_used(world):
    t = parameter()
    step = world.compile(lambda x: x * 2 if t.grad is None else x * 3)
    step(V)
    t.grad = V
    step(V)
    t.grad = None
    step(V)


@case
def grad_shape_differs(world):
    t = parameter()
    step = world.compile(lambda x: x * t.grad.shape[0])
    t.grad = V
    step(V)
    t.grad = dl.ones(5)
    step(V)


@case
def grad_dtype_differs(world):
    t = parameter()
    step = world.compile(lambda x: x * t.grad)
    t.grad = V
    step(V)
    t.grad = V.astype("float64")
    step(V)


@case
def grad_requires_grad(world):
    t = parameter()
    g = dl.tensor([1.0, 2.0, 3.0], requires_grad=True)
    t.grad = g
    step = world.compile(lambda x: (x * t.grad).sum() * 1)
    step(V)


@case
def grad_alias_of_state(world):
    t = world.watch(parameter())
    m = world.watch(dl.tensor([1.0, 2.0, 3.0]))
    t.grad = m

    def f(x):
        m.assign(m * 2)
        return t.grad * x

    step = world.compile(f)
    step(V)
    step(V)


@case
def same_grad_for_two(world):
    a, b = world.watch(parameter()), world.watch(parameter())
    a.grad = b.grad = dl.ones(3)

    def f(x):
        (a * b * x).sum().backward()
        return a.grad * 1

    step = world.compile(f)
    step(V)
    step(V)


@case
def grad_kept_elsewhere(world):
    a = world.watch(parameter())
    kept = world.watch(dl.ones(3))
    a.grad = kept

    def f(x):
        (a * x).sum().backward()

    step = world.compile(f)
    step(V)
    world.note(kept)
    step(V)
    world.note(kept)


@may_be_refused
def gradient_through_compiled(world):
    f = world.compile(lambda x: dl.exp(x))
    x = dl.tensor([0.5, 1.0], requires_grad=True)
    world.note(dl.grad(f(x).sum() + x.sum(), x))


@may_be_refused
def backward_through_compiled_parameters(world):
    p = world.watch(parameter())
    f = world.compile(lambda x: (p * x).sum())
    values = f(V)
    values.backward()
    world.note(p.grad)


@may_be_refused
def backward_through_compiled_model(world):
    layer = world.watch(dl.Dense(3, 1, seed=0))
    f = world.compile(lambda x: layer(x))
    ((f(X) - 1.0) ** 2 + layer.weight.sum()).mean().backward()
    world.note(layer)


@may_be_refused
def detach_result_then_train(world):
    p = world.watch(parameter())
    f = world.compile(lambda x: p * x)
    y = f(V)
    world.note(y.requires_grad)


@case
def no_grad_inside(world):
    p = world.watch(parameter())

    def f(x):
        with dl.no_grad():
            y = (p * x).sum()
        return (y.requires_grad and x) or x * 2

    step = world.compile(f)
    step(V)
    step(V)


@case
def grad_under_no_grad(world):
    def f(x):
        x = dl.tensor(numpy.ones(3, "float32"), requires_grad=True)
        return dl.grad((x * x).sum(), x)

    step = world.compile(f)
    step(V)


@case
def result_assigned_later(world):
    step = world.compile(lambda x: x * 2)
    y = step(V)
    y.assign(y + 1)
    world.note(y)
    world.note(step(V))


@case
def state_update_of_a_slice_outside(world):
    t = world.watch(dl.zeros((4, 3)))
    row = t[1]

    def f(x):
        row.assign(row + x)
        return row * 1

    step = world.compile(f)
    step(V)
    step(V)
    world.note(t)


@case
def assigned_number_types(world):
    t = world.watch(dl.zeros(3))
    step = world.compile(lambda x: t.assign(x.astype("float64")))
    step(V)
    step(V)


@case
def assigned_from_numpy_const(world):
    t = world.watch(dl.zeros(3))
    a = numpy.ones(3, "float32")
    step = world.compile(lambda x: t.assign(t + a))
    step(V)
    a[:] = 5
    step(V)


@case
def constant_list_to_tensor(world):
    layer = [1.0, 2.0, 3.0]
    step = world.compile(lambda x: x + dl.tensor(layer))
    step(V)
    layer[0] = 9.0
    step(V)


@case
def one_hot_labels(world):
    step = world.compile(lambda i: dl.one_hot(i, 4))
    step(dl.tensor([0, 1, 3]))
    step(dl.tensor([2, 2, 0]))


@case
def schedule_object_changed(world):
    p = parameter()
    sc = dl.schedules.Step(0.1, 1)
    thing = dl.SGD([p], sc)
    step = make_step(world, p, thing)
    step(V)
    for _k, _v in vars(sc).items() if hasattr(sc, "__dict__") else []:
        pass
    step(V)


@case
def schedule_lambda_closure(world):
    p = parameter()
    k = [0.1]
    thing = dl.SGD([p], lambda n: k[0] / (n + 1))
    step = make_step(world, p, thing)
    step(V)
    k[0] = 0.5
    step(V)
    step(V)


@case
def schedule_object_user(world):
    class S:
        def __init__(self):
            self.base = 0.1

        def __call__(self, n):
            return self.base / (n + 1)

    p = parameter()
    c = S()
    thing = dl.SGD([p], c)
    step = make_step(world, p, thing)
    step(V)
    c.base = 0.5
    step(V)
    step(V)


@case
def optimizer_replaced_in_closure(world):
    p = world.watch(parameter())
    thing = dl.SGD([p], 0.1)

    def f(x):
        (p * x).sum().backward()
        thing.step()

    step = world.compile(f)
    step(V)
    thing = dl.Adam([p], 0.1)
    step(V)
    step(V)


@case
def optimizer_in_dict(world):
    p = world.watch(parameter())
    d = {"thing": dl.SGD([p], 0.1)}

    def f(x):
        (p * x).sum().backward()
        d["thing"].step()

    step = world.compile(f)
    step(V)
    d["thing"] = dl.Adam([p], 0.1)
    step(V)
    d["thing"].beta1 = 0.2
    step(V)


@case
def optimizer_states_replaced(world):
    p = parameter()
    thing = dl.SGD([p], 0.1)
    step = make_step(world, p, thing)
    step(V)
    thing.states = [{"velocity": dl.ones(3)}]
    step(V)
    thing.states[0]["velocity"] = dl.ones(3) * 5
    step(V)


@case
def optimizer_learning_rate_tensor(world):
    p = parameter()
    thing = dl.SGD([p], 0.1)
    step = make_step(world, p, thing)
    step(V)
    thing.learning_rate = dl.tensor(0.5)
    step(V)
    thing._learning_rate = dl.tensor(numpy.array(0.7))
    step(V)


@case
def optimizer_step_count_replaced(world):
    p = parameter()
    thing = dl.Adam([p], lambda n: 0.1 / (n + 1))
    step = make_step(world, p, thing)
    step(V)
    thing.step_count = dl.tensor(numpy.array(7.0))
    step(V)


@case
def optimizer_of_subset(world):
    a, b = world.watch(parameter()), world.watch(parameter())
    thing = dl.SGD([a], 0.1)

    def f(x):
        (a * b * x).sum().backward()
        thing.step()

    step = world.compile(f)
    [step(V) for _ in range(3)]
    b.grad = None
    step(V)


@may_be_refused
def lr_factor_int_float(world):
    p = parameter()
    thing = dl.SGD([p], 0.1)
    step = make_step(world, p, thing)
    step(V)
    p.learning_rate_factor = numpy.float32(0.5)
    step(V)
    p.learning_rate_factor = dl.tensor(0.25)
    step(V)


@may_be_refused
def lr_factor_tensor_assigned(world):
    p = parameter()
    p.learning_rate_factor = dl.tensor(0.25)
    thing = dl.SGD([p], 0.1)
    step = make_step(world, p, thing)
    step(V)
    p.learning_rate_factor.assign(0.5)
    step(V)


@case
def parameter_replaced_everywhere(world):
    layer = dl.Dense(3, 2, seed=0)
    thing = dl.SGD(layer.parameters(), 0.1)

    def f(x):
        (layer(x) * layer(x)).sum().backward()
        thing.step()

    world.watch(layer, thing)
    step = world.compile(f)
    step(X)
    layer.weight = dl.Parameter(dl.ones((3, 2)))
    thing.parameters = layer.parameters()
    step(X)
    step(X)


@case
def shared_layer_unshared(world):
    a = dl.Dense(3, 3, seed=0)
    n = dl.Network([a, a])
    world.watch(n)
    step = world.compile(lambda x: n(x).sum().backward())
    step(X)
    n[1] = copy.deepcopy(a)
    step(X)
    step(X)


@case
def module_of_functions_reloaded(world):
    m = user_module("re", "def g(x): return x*2\ndef f(x): return g(x)")
    step = world.compile(m.f)
    step(V)
    exec("def g(x): return x*3", vars(m))
    step(V)


@case
def function_rebound_recursive(world):
    m = user_module("rec", "def g(x,n): return x if n==0 else g(x*2,n-1)\nN=2\ndef f(x): return g(x,N)")
    step = world.compile(m.f)
    step(V)
    m.N = 3
    step(V)
    m.g = lambda x, n: x
    step(V)


@case
def wrapped_by_context_decorator(world):
    k = [2.0]

    @contextlib.contextmanager
    def scaled():
        yield k[0]

    def f(x):
        with scaled() as v:
            return x * v

    step = world.compile(f)
    step(V)
    k[0] = 3.0
    step(V)


@case
def generator_function_inside(world):
    k = [1.0, 2.0]

    def items():
        yield from k

    step = world.compile(lambda x: sum(x * v for v in items()))
    step(V)
    k.append(3.0)
    step(V)


@case
def counter_object(world):
    class C:
        def __init__(self):
            self.n = 0

        def __call__(self):
            self.n += 1
            return float(self.n)

    it = C()
    step = world.compile(lambda x: x * it())
    [step(V) for _ in range(6)]
    world.note(it.n)


@case
def counter_every_other(world):
    class C:
        def __init__(self):
            self.n = 0

        def __call__(self):
            self.n += 1
            return float(self.n // 2)

    it = C()
    step = world.compile(lambda x: x * it())
    [step(V) for _ in range(8)]
    world.note(it.n)


@case
def layer_counter_warmup(world):
    class L(dl.Layer):
        def __init__(self):
            self.n = 0

        def forward(self, x):
            self.n = min(self.n + 1, 3)
            return x * self.n

    layer = world.watch(L())
    step = world.compile(lambda x: layer(x))
    [step(V) for _ in range(6)]
    layer.n = 0
    [step(V) for _ in range(6)]


@case
def layer_list_attr_counter(world):
    class L(dl.Layer):
        def __init__(self):
            self.n = [0]

        def forward(self, x):
            self.n[0] = min(self.n[0] + 1, 3)
            return x * self.n[0]

    layer = world.watch(L())
    step = world.compile(lambda x: layer(x))
    [step(V) for _ in range(6)]
    layer.n[0] = 0
    [step(V) for _ in range(6)]


@case
def layer_swap_attributes(world):
    class L(dl.Layer):
        def __init__(self):
            self.a, self.b = dl.ones(3), dl.ones(3) * 2

        def forward(self, x):
            self.a, self.b = self.b, self.a
            return x * self.a

    layer = L()
    step = world.compile(lambda x: layer(x))
    [step(V) for _ in range(5)]
    world.note(layer.a, layer.b)


@case
def layer_swap_layers(world):
    class L(dl.Layer):
        def __init__(self):
            self.a, self.b = dl.Dense(3, 3, seed=0), dl.Dense(3, 3, seed=1)

        def forward(self, x):
            self.a, self.b = self.b, self.a
            return self.a(x)

    layer = L()
    step = world.compile(lambda x: layer(x))
    [step(X) for _ in range(5)]
    world.note(layer.a, layer.b)


@case
def layer_sets_other_layers_attribute(world):
    layer = dl.Dropout(0.5, seed=1)

    def f(x):
        layer.rate = 0.25
        return layer(x)

    world.watch(layer)
    step = world.compile(f)
    step(X)
    layer.rate = 0.9
    step(X)
    step(X)


@case
def layer_deletes_attribute(world):
    class L(dl.Layer):
        def forward(self, x):
            k = getattr(self, "k", 2.0)
            if hasattr(self, "k"):
                del self.k
            return x * k

    layer = world.watch(L())
    step = world.compile(lambda x: layer(x))
    step(V)
    layer.k = 5.0
    step(V)
    step(V)
    layer.k = 7.0
    step(V)


@case
def layer_train_inside(world):
    layer = world.watch(dl.Dropout(0.5, seed=1))

    def f(x):
        layer.train()
        y = layer(x)
        layer.eval()
        return y, layer(x)

    step = world.compile(f)
    step(X)
    layer.train()
    step(X)
    step(X)


@case
def set_attr_to_argument(world):
    class L(dl.Layer):
        def forward(self, x):
            self.x = x
            return x * 2

    layer = L()
    step = world.compile(lambda x: layer(x))
    for i in range(3):
        step(V * i)
        world.note(layer.x)


@case
def set_attr_to_layer(world):
    class L(dl.Layer):
        def __init__(self):
            self.a = dl.Dense(3, 3, seed=0)

        def forward(self, x):
            self.current = self.a
            return self.current(x)

    layer = L()
    step = world.compile(lambda x: layer(x))
    for i in range(5):
        step(X * i)
        world.note(layer.current is layer.a)


@case
def trainer_attribute_set(world):
    t = trainer(world)
    t.loss = lambda y, target: ((y - target) ** 2).mean() * t.weight
    t.weight = 1.0
    fitted(world, t)
    t.weight = 0.0
    fitted(world, t)


@case
def callback_learning_rate(world):
    t = trainer(world)

    def cb(fit):
        t.optimizer.learning_rate = 0.01

    fitted(world, t, callbacks=[cb])
    fitted(world, t)


@case
def callback_freeze(world):
    t = trainer(world)
    n = [0]

    def cb(fit):
        n[0] += 1
        for p in t.network[0].parameters():
            p.requires_grad = n[0] % 2 == 0

    fitted(world, t, callbacks=[cb])
    fitted(world, t)


@case
def custom_metric_object(world):
    class M:
        in_steps = True

        def __init__(self):
            self.k = 1.0
            self.__name__ = "m"

        def __call__(self, y, t):
            return dl.mean_absolute_error(y, t) * self.k

    m = M()
    t = trainer(world, metrics=[m])
    fitted(world, t)
    m.k = 2.0
    fitted(world, t)


@case
def trainer_two_networks_shared(world):
    t = trainer(world)
    u = dl.Trainer(
        t.network,
        dl.mean_squared_error,
        dl.Adam(t.network.parameters(), 0.01),
        device="cpu",
        compile=False if world.options is None else world.options,
        seed=1,
    )
    fitted(world, t)
    fitted(world, u)
    fitted(world, t)


@case
def trainer_predict_modes(world):
    t = trainer(world)
    t.network.append(dl.Dropout(0.5, seed=3))
    fitted(world, t)
    world.note(t.predict(DATA[:3]))
    world.note(t.predict(DATA[:3]))
    t.network.append(dl.Tanh())
    world.note(t.predict(DATA[:3]))


@case
def predict_with_weights_loaded(world):
    t = trainer(world)
    world.note(t.predict(DATA))
    st = {k: v * 2 for k, v in t.network.state_dict().items()}
    t.network.load_state_dict(st)
    world.note(t.predict(DATA))


@case
def bce_targets(world):
    step = world.compile(lambda p, t: dl.binary_cross_entropy(p, t))
    p = dl.tensor([0.5, 0.5])
    step(p, dl.tensor([0.0, 1.0]))
    with contextlib.suppress(ValueError):
        step(p, dl.tensor([255.0, 1.0]))


@case
def bce_predictions(world):
    step = world.compile(lambda p, t: dl.binary_cross_entropy(p, t))
    t = dl.tensor([0.0, 1.0])
    step(dl.tensor([0.5, 0.5]), t)
    with contextlib.suppress(ValueError):
        step(dl.tensor([1.5, 0.5]), t)


@case
def labels_out_of_range(world):
    step = world.compile(lambda p, t: dl.softmax_cross_entropy(p, t))
    p = dl.ones((2, 3))
    step(p, dl.tensor([0, 2]))
    with contextlib.suppress(ValueError, IndexError):
        step(p, dl.tensor([0, 3]))


@case
def index_out_of_range(world):
    step = world.compile(lambda p, i: p[i])
    step(V, dl.tensor([0, 2]))
    step(V, dl.tensor([-1, -3]))
    with contextlib.suppress(ValueError, IndexError):
        step(V, dl.tensor([0, 3]))


@case
def embedding_out_of_range(world):
    e = dl.Embedding(4, 2, seed=0)
    step = world.compile(lambda i: e(i))
    step(dl.tensor([0, 3]))
    with contextlib.suppress(ValueError, IndexError):
        step(dl.tensor([0, 4]))


@case
def take_out_of_range(world):
    step = world.compile(lambda p, i: dl.take(p, i))
    step(V, dl.tensor([0, 2]))
    with contextlib.suppress(ValueError, IndexError):
        step(V, dl.tensor([0, 5]))


@case
def one_hot_out_of_range(world):
    step = world.compile(lambda i: dl.one_hot(i, 3))
    step(dl.tensor([0, 2]))
    with contextlib.suppress(ValueError, IndexError):
        step(dl.tensor([0, 3]))


@case
def exception_only_later(world):
    n = types.SimpleNamespace(fail=False)
    p = world.watch(parameter())

    def f(x):
        p.assign(p + x)
        if n.fail:
            raise Trouble
        return p * 1

    step = world.compile(f)
    step(V)
    n.fail = True
    before = p.numpy()
    with contextlib.suppress(Trouble):
        step(V)
    p.assign(before)
    n.fail = False
    step(V)


@case
def keyboard_interrupt_recording(world):
    p = world.watch(parameter())
    n = [True]

    def f(x):
        p.assign(p + x)
        p.grad = x
        if n[0]:
            raise KeyboardInterrupt
        return p * 1

    before = p.numpy()
    step = world.compile(f)
    with contextlib.suppress(KeyboardInterrupt):
        step(V)
    if world.options is None:
        p.assign(before)
        p.grad = None
    world.note(p)
    n[0] = False
    step(V)


@case
def isinstance_class_patched(world):
    class A(dl.Layer):
        def forward(self, x):
            return self.helper(x)

        def helper(self, x):
            return x * 2

    a = A()
    step = world.compile(lambda x: a(x))
    step(V)
    A.helper = lambda self, x: x * 3
    step(V)
    a.helper = lambda x: x * 4
    step(V)
    del a.helper
    step(V)


@case
def class_gets_new_method(world):
    class A(dl.Layer):
        def forward(self, x):
            return x * (3 if hasattr(type(self), "extra") else 2)

    a = A()
    step = world.compile(lambda x: a(x))
    step(V)
    A.extra = 1
    step(V)


@case
def getattr_hook_on_module(world):
    m = user_module(
        "ga",
        "v={'a':2.0}\ndef __getattr__(n):\n    if n=='scale': return v['a']\n    raise AttributeError(n)",
    )
    step = world.compile(lambda x: x * m.scale)
    step(V)
    m.v["a"] = 3.0
    step(V)


@case
def string_module_lookup(world):
    m = user_module("sl", scale=2.0)
    step = world.compile(lambda x: x * sys.modules["law_sl"].scale)
    step(V)
    m.scale = 3.0
    step(V)


@case
def importlib_lookup(world):
    m = user_module("il", scale=2.0)
    step = world.compile(lambda x: x * importlib.import_module("law_il").scale)
    step(V)
    m.scale = 3.0
    step(V)


@case
def evaluated_text(world):
    d = {"k": 2.0}
    step = world.compile(lambda x: eval("x*d['k']", {"x": x, "d": d}))
    step(V)
    d["k"] = 3.0
    step(V)


@case
def format_attribute(world):
    thing = types.SimpleNamespace(scale=2.0)
    step = world.compile(lambda x: x * float(f"{thing.scale}"))
    step(V)
    thing.scale = 3.0
    step(V)


@case
def copied_object(world):
    thing = types.SimpleNamespace(scale=2.0)
    step = world.compile(lambda x: x * json.loads(json.dumps(thing, default=vars))["scale"])
    step(V)
    thing.scale = 3.0
    step(V)


@case
def deep_copied(world):
    thing = types.SimpleNamespace(scale=[2.0])
    step = world.compile(lambda x: x * copy.deepcopy(thing).scale[0])
    step(V)
    thing.scale[0] = 3.0
    step(V)


@case
def sorted_key(world):
    values = [3.0, 1.0]
    k = [1]
    step = world.compile(lambda x: x * sorted(values, key=lambda v: v * k[0])[0])
    step(V)
    k[0] = -1
    step(V)


@case
def map_filter(world):
    values = [3.0, 1.0]
    k = [1]
    step = world.compile(lambda x: x * sum(v * k[0] for v in filter(None, values)))
    step(V)
    k[0] = -1
    step(V)
    values.append(2.0)
    step(V)


@case
def numpy_vectorized_const(world):
    a = numpy.array([1.0, 2.0, 3.0], "float32")
    v = a[::-1]
    step = world.compile(lambda x: x * v)
    step(V)
    a[0] = 9
    step(V)


@case
def object_array(world):
    thing = [2.0]
    a = numpy.array([thing, None], dtype=object)
    step = world.compile(lambda x: x * a[0][0])
    step(V)
    thing[0] = 3.0
    step(V)


@case
def structured_array(world):
    a = numpy.zeros(2, [("a", "f4"), ("b", "i4")])
    a["a"] = 2
    step = world.compile(lambda x: x * float(a["a"][0]))
    step(V)
    a["a"][0] = 3.0
    step(V)


@case
def masked_array(world):
    a = numpy.ma.array([1.0, 2.0, 3.0], mask=[0, 0, 0])
    step = world.compile(lambda x: x * float(a.sum()))
    step(V)
    a.mask[0] = True
    step(V)
    a[1] = numpy.ma.masked
    step(V)


@case
def ndarray_subclass_attr(world):
    class A(numpy.ndarray):
        pass

    a = numpy.ones(3, "float32").view(A)
    a.k = 2.0
    step = world.compile(lambda x: x * a.k)
    step(V)
    a.k = 3.0
    step(V)


@case
def parameter_subclass_attr(world):
    class Special(dl.Parameter):
        pass

    a = Special([1.0, 2.0, 3.0])
    a.k = 2.0
    step = world.compile(lambda x: x * a.k)
    step(V)
    a.k = 3.0
    step(V)


@case
def tensor_subclass_attr(world):
    class Special(dl.Tensor):
        pass

    a = Special(numpy.ones(3, "float32"))
    a.k = 2.0
    step = world.compile(lambda x: x * a.k)
    step(V)
    a.k = 3.0
    step(V)


@case
def generator_subclass_attr(world):
    class Special(dl.Generator):
        pass

    a = Special(1)
    a.k = 2.0
    step = world.compile(lambda x: x * a.k)
    step(V)
    a.k = 3.0
    step(V)


@case
def random_subclass_attr(world):
    class Special(random.Random):
        pass

    a = Special(1)
    a.k = 2.0
    step = world.compile(lambda x: x * a.k)
    step(V)
    a.k = 3.0
    step(V)


@case
def np_random_state_inspect(world):
    step = world.compile(lambda x: x * 2)
    step(V)
    numpy.random.random()  # noqa: NPY002
    step(V)


@case
def dl_layer_members_override(world):
    class L(dl.Layer):
        def __init__(self):
            self._hidden = {"a": dl.Dense(3, 2, seed=0)}

        def members(self):
            return self._hidden

        def forward(self, x):
            return self._hidden["a"](x)

    layer = L()
    step = world.compile(lambda x: layer(x))
    step(X)
    layer._hidden["a"] = dl.Dense(3, 2, seed=4)
    step(X)


@case
def nested_layer_in_plain_object(world):
    thing = types.SimpleNamespace(layer=dl.Dropout(0.5, seed=1))
    step = world.compile(lambda x: thing.layer(x))
    step(X)
    thing.layer.rate = 0.1
    step(X)
    thing.layer.eval()
    step(X)
    thing.layer = dl.ReLU()
    step(X)


@case
def layer_behind_weird_name(world):
    class Thing:
        def __init__(self):
            self.layer = dl.Dropout(0.5, seed=1)

        def run(self, x):
            return self.layer(x)

    thing = Thing()
    step = world.compile(thing.run)
    step(X)
    thing.layer.eval()
    step(X)


@case
def weakref_layer(world):
    layer = dl.Dropout(0.5, seed=1)
    r = weakref.ref(layer)
    step = world.compile(lambda x: r()(x))
    step(X)
    layer.eval()
    step(X)
    layer.rate = 0.2
    layer.train()
    step(X)


@case
def layer_found_by_library(world):
    d = collections.ChainMap({"layer": dl.Dropout(0.5, seed=1)})
    step = world.compile(lambda x: d["layer"](x))
    step(X)
    d["layer"].eval()
    step(X)


@case
def exit_stack(world):
    layer = dl.Dropout(0.5, seed=1)

    def f(x):
        with contextlib.ExitStack() as st:
            st.enter_context(layer.evaluating())
            return layer(x)

    step = world.compile(f)
    step(X)
    step(X)
    layer.eval()
    step(X)


@case
def dict_with_tensor_replaced(world):
    d = {"t": dl.ones(3)}
    step = world.compile(lambda x: x * d["t"])
    step(V)
    d["t"] = dl.ones(3) * 2
    step(V)
    d["t"].assign([4.0, 4.0, 4.0])
    step(V)
    d["t"] = 3.0
    step(V)


@case
def int_enum_flags(world):
    class F(enum.IntFlag):
        A = 1
        B = 2

    thing = types.SimpleNamespace(f=F.A)
    step = world.compile(lambda x: x * int(thing.f))
    step(V)
    thing.f |= F.B
    step(V)


@case
def big_int_equal_objects(world):
    thing = types.SimpleNamespace(f=10**20)
    step = world.compile(lambda x: x * float(thing.f))
    step(V)
    thing.f = 10**20 + 0
    step(V)
    thing.f = 10**19
    step(V)


@case
def back_and_forth_many(world):
    thing = types.SimpleNamespace(f=1.0)
    step = world.compile(lambda x: x * thing.f)
    for i in range(60):
        thing.f = float(i % 20)
        step(V)
