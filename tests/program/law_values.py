"""What Python code can read, where it can read it, and how that can change: the table behind test_law.

A `Kind` makes a value, changes it, and computes with it. A place is a function that takes the value and what
uses it, and returns a function of an array and one that puts another value in the place.
"""

import array
import collections
import dataclasses
import enum
import functools
import sys
import types
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy

import minidl as dl


@dataclasses.dataclass
class Kind:
    """A kind of value: ``change`` returns another value, or changes the one it gets and returns that."""

    make: Callable[[], Any]
    change: Callable[[Any], Any]
    use: Callable[[Any, Any], Any] = lambda value, x: x * value


# --- values ---------------------------------------------------------------------------------------


def inside(action):
    """Return a change that works on the value itself."""

    def change(value):
        action(value)
        return value

    return change


@dataclasses.dataclass
class Options:
    scale: Any = 2.0
    shifts: Any = dataclasses.field(default_factory=lambda: [1.0, 2.0])


@dataclasses.dataclass(frozen=True)
class FixedOptions:
    scale: float = 2.0


@dataclasses.dataclass(slots=True)
class SlottedOptions:
    scale: float = 2.0


class Pair(NamedTuple):
    scale: Any
    shift: Any


class Kinds(enum.Enum):
    DOUBLE = 2.0
    TRIPLE = 3.0


class Slotted:
    __slots__ = ("scale",)

    def __init__(self, scale):
        self.scale = scale


class WithProperty:
    def __init__(self):
        self.hidden = 1.0

    @property
    def scale(self):
        return self.hidden + 1


class Delegating:
    def __init__(self):
        self.inner = Options()

    def __getattr__(self, name):
        return getattr(self.inner, name)


class Table:
    def __init__(self):
        self.items = {"scale": 2.0}

    def __getitem__(self, key):
        return self.items[key]


class Callable_:
    def __init__(self):
        self.scale = 2.0

    def __call__(self, x):
        return x * self.scale


class WithClassAttribute:
    scale = 2.0


class Link:
    def __init__(self, scale, following=None):
        self.scale = scale
        self.following = following


class Dictionary(dict):
    """A dict with attributes of its own."""


class Double(dl.Layer):
    def forward(self, x):
        return x * 2


class Triple(dl.Layer):
    def forward(self, x):
        return x * 3


class Scale(dl.Layer):
    def __init__(self, scale):
        self.scale = scale

    def forward(self, x):
        return x * self.scale


def set_scale(value):
    value.scale = 3.0


def linked(value, x):
    while value is not None:
        x = x * value.scale
        value = value.following
    return x


def write(value):
    value[...] = [3.0, 4.0, 5.0]


def numbers(*values):
    return numpy.array(values, "float32")


def noise(value, x):
    return x + dl.random.uniform((2, 3), generator=value)


of = lambda value, x: x * value.scale
item = lambda value, x: x * value[0] + value[-1] * len(value)
call = lambda value, x: value(x)

KINDS = {
    "int": Kind(lambda: 2, lambda v: 3),
    "float": Kind(lambda: 2.0, lambda v: 3.0),
    "sign of zero": Kind(lambda: 0.0, lambda v: -0.0),
    "not a number": Kind(lambda: float("nan"), lambda v: 1.0),
    "bool": Kind(lambda: True, lambda v: False, lambda v, x: x * 2 if v else x * 3),
    "bool to int": Kind(lambda: True, lambda v: 1, lambda v, x: x * (2 if v is True else 3)),
    "int to float": Kind(lambda: 1, lambda v: 1.0, lambda v, x: dl.tensor([1, 2]) * v),
    "str": Kind(lambda: "a", lambda v: "b", lambda v, x: x * {"a": 2, "b": 3}[v]),
    "None": Kind(lambda: None, lambda v: 3.0, lambda v, x: x if v is None else x * v),
    "complex": Kind(lambda: 2 + 1j, lambda v: 2 + 3j, lambda v, x: x * v.imag),
    "bytes": Kind(lambda: b"\x01", lambda v: b"\x02", item),
    "tuple": Kind(lambda: (1.0, 2.0), lambda v: (1.0, 3.0), item),
    "list in a tuple": Kind(
        lambda: ([1.0, 2.0],), inside(lambda v: v[0].append(3.0)), lambda v, x: item(v[0], x)
    ),
    "list": Kind(lambda: [1.0, 2.0], lambda v: [1.0, 3.0], item),
    "item of a list": Kind(lambda: [1.0, 2.0], inside(lambda v: v.__setitem__(0, 5.0)), item),
    "list that grows": Kind(lambda: [1.0, 2.0], inside(lambda v: v.append(5.0)), item),
    "order of a list": Kind(lambda: [1.0, 2.0], inside(lambda v: v.reverse()), item),
    "list in a list": Kind(
        lambda: [[1.0], 2.0], inside(lambda v: v[0].append(2.0)), lambda v, x: item(v[0], x)
    ),
    "dict": Kind(lambda: {"a": 2.0}, lambda v: {"a": 3.0}, lambda v, x: x * v["a"]),
    "item of a dict": Kind(lambda: {"a": 2.0}, inside(lambda v: v.update(a=3.0)), lambda v, x: x * v["a"]),
    "key of a dict": Kind(
        lambda: {"a": 2.0}, inside(lambda v: v.update(b=3.0)), lambda v, x: x * v.get("b", 7)
    ),
    "key taken from a dict": Kind(lambda: {"a": 2.0}, inside(dict.clear), lambda v, x: x * v.get("a", 7)),
    "order of a dict": Kind(
        lambda: {"a": 2.0, "b": 3.0},
        inside(lambda v: v.update(a=v.pop("a"))),
        lambda v, x: x * next(iter(v.values())),
    ),
    "dict in a dict": Kind(
        lambda: {"a": {"b": 2.0}}, inside(lambda v: v["a"].update(b=3.0)), lambda v, x: x * v["a"]["b"]
    ),
    "list in a dict": Kind(
        lambda: {"a": [2.0]}, inside(lambda v: v["a"].append(3.0)), lambda v, x: item(v["a"], x)
    ),
    "defaultdict": Kind(
        lambda: collections.defaultdict(float, a=2.0),
        inside(lambda v: v.update(a=3.0)),
        lambda v, x: x * v["a"],
    ),
    "ordered dict": Kind(
        lambda: collections.OrderedDict(a=2.0, b=3.0),
        inside(lambda v: v.move_to_end("a")),
        lambda v, x: x * next(iter(v.values())),
    ),
    "user dict": Kind(
        lambda: collections.UserDict(a=2.0), inside(lambda v: v.update(a=3.0)), lambda v, x: x * v["a"]
    ),
    "user list": Kind(lambda: collections.UserList([1.0, 2.0]), inside(lambda v: v.append(3.0)), item),
    "chain of dicts": Kind(
        lambda: collections.ChainMap({}, {"a": 2.0}),
        inside(lambda v: v.update(a=3.0)),
        lambda v, x: x * v["a"],
    ),
    "view of a dict": Kind(
        lambda: types.MappingProxyType({"a": [2.0]}),
        inside(lambda v: v["a"].append(3.0)),
        lambda v, x: item(v["a"], x),
    ),
    "attribute of a dict": Kind(
        lambda: Dictionary(), inside(set_scale), lambda v, x: x * getattr(v, "scale", 2.0)
    ),
    "named attribute of a dict": Kind(
        lambda: (lambda d: (setattr(d, "scale", 2.0), d)[1])(Dictionary()),
        inside(set_scale),
        lambda v, x: x * v.scale,
    ),
    "counter": Kind(
        lambda: collections.Counter("ab"), inside(lambda v: v.update("a")), lambda v, x: x * v["a"]
    ),
    "deque": Kind(lambda: collections.deque([1.0, 2.0]), inside(lambda v: v.rotate(1)), item),
    "set": Kind(lambda: {1.0}, inside(lambda v: v.add(2.0)), lambda v, x: x * sum(v)),
    "frozenset": Kind(lambda: frozenset({1.0}), lambda v: v | {2.0}, lambda v, x: x * sum(v)),
    "array": Kind(lambda: numbers(1, 2, 3), lambda v: numbers(3, 4, 5)),
    "contents of an array": Kind(lambda: numbers(1, 2, 3), inside(write)),
    "array through a view": Kind(
        lambda: numbers(1, 2, 3, 4)[1:], inside(lambda v: v.base.__setitem__(2, 7.0))
    ),
    "0-d array": Kind(lambda: numpy.array(2.0, "float32"), inside(lambda v: v.fill(3.0))),
    "shape of an array": Kind(
        lambda: numpy.ones((2, 3), "float32"), lambda v: v.reshape(3, 2), lambda v, x: x * v.shape[0]
    ),
    "dtype of an array": Kind(lambda: numpy.ones(3, "float32"), lambda v: v.astype("float64")),
    "list of arrays": Kind(lambda: [numbers(1, 2, 3)], inside(lambda v: write(v[0])), lambda v, x: x * v[0]),
    "array of bytes": Kind(lambda: bytearray(b"\x01\x02"), inside(lambda v: v.__setitem__(0, 5)), item),
    "array.array": Kind(lambda: array.array("d", [1, 2]), inside(lambda v: v.append(3)), item),
    "memoryview": Kind(
        lambda: memoryview(bytearray(b"\x01\x02")), inside(lambda v: v.__setitem__(0, 5)), item
    ),
    "scalar of NumPy": Kind(lambda: numpy.float32(2), lambda v: numpy.float32(3)),
    "dtype of a scalar": Kind(
        lambda: numpy.int64(2), lambda v: numpy.float64(2), lambda v, x: dl.tensor([1, 2]) * v
    ),
    "dtype": Kind(lambda: numpy.dtype("float32"), lambda v: numpy.dtype("float64"), lambda v, x: x.astype(v)),
    "slice": Kind(lambda: slice(0, 2), lambda v: slice(1, 3), lambda v, x: x[:, v]),
    "range": Kind(lambda: range(2), lambda v: range(3), lambda v, x: x * len(v)),
    "enum": Kind(lambda: Kinds.DOUBLE, lambda v: Kinds.TRIPLE, lambda v, x: x * v.value),
    "lambda": Kind(lambda: lambda x: x * 2, lambda v: lambda x: x * 3, call),
    "function of minidl": Kind(lambda: dl.tanh, lambda v: dl.relu, call),
    "function of NumPy": Kind(lambda: numpy.tanh, lambda v: numpy.sin, call),
    "partial": Kind(
        lambda: functools.partial(dl.multiply, 2.0), lambda v: functools.partial(dl.multiply, 3.0), call
    ),
    "list in a partial": Kind(
        lambda: functools.partial(lambda values, x: item(values, x), [1.0, 2.0]),
        inside(lambda v: v.args[0].append(3.0)),
        call,
    ),
    "keywords of a partial": Kind(
        lambda: functools.partial(lambda x, scale: x * scale, scale=2.0),
        inside(lambda v: v.keywords.update(scale=3.0)),
        call,
    ),
    "method": Kind(lambda: Scale(2.0).forward, lambda v: Scale(3.0).forward, call),
    "object of a method": Kind(lambda: Scale(2.0).forward, inside(lambda v: set_scale(v.__self__)), call),
    "code of a function": Kind(
        lambda: types.FunctionType((lambda x: x * 2).__code__, {}),
        inside(lambda v: setattr(v, "__code__", (lambda x: x * 3).__code__)),
        call,
    ),
    "defaults of a function": Kind(
        lambda: lambda x, scale=2.0: x * scale, inside(lambda v: setattr(v, "__defaults__", (3.0,))), call
    ),
    "named defaults of a function": Kind(
        lambda: lambda x, *, scale=2.0: x * scale, inside(lambda v: v.__kwdefaults__.update(scale=3.0)), call
    ),
    "attribute of a function": Kind(
        lambda: (lambda f: (setattr(f, "scale", 2.0), f)[1])(lambda: None), inside(set_scale), of
    ),
    "tensor": Kind(lambda: dl.tensor([1.0, 2.0, 3.0]), lambda v: dl.tensor([3.0, 4.0, 5.0])),
    "contents of a tensor": Kind(
        lambda: dl.tensor([1.0, 2.0, 3.0]), inside(lambda v: v.assign([3.0, 4.0, 5.0]))
    ),
    "array of a tensor": Kind(
        lambda: dl.tensor([1.0, 2.0, 3.0]), inside(lambda v: setattr(v, "data", numbers(3, 4, 5)))
    ),
    "written array of a tensor": Kind(lambda: dl.tensor([1.0, 2.0, 3.0]), inside(lambda v: write(v.data))),
    "shape of a tensor": Kind(
        lambda: dl.ones((1, 3)), inside(lambda v: setattr(v, "data", numpy.full((2, 3), 2, "float32")))
    ),
    "parameter": Kind(lambda: dl.Parameter([1.0, 2.0, 3.0]), lambda v: dl.Parameter([3.0, 4.0, 5.0])),
    "parameter to none": Kind(
        lambda: dl.Parameter([1.0, 2.0, 3.0]), lambda v: None, lambda v, x: x * (2 if v is None else v)
    ),
    "tensor to number": Kind(lambda: dl.tensor(2.0), lambda v: 3.0),
    "layer": Kind(Double, lambda v: Triple(), call),
    "attribute of a layer": Kind(lambda: Scale(2.0), inside(set_scale), call),
    "new attribute of a layer": Kind(Double, inside(set_scale), lambda v, x: x * getattr(v, "scale", 2.0)),
    "deleted attribute of a layer": Kind(
        lambda: Scale(2.0), inside(lambda v: delattr(v, "scale")), lambda v, x: x * getattr(v, "scale", 7.0)
    ),
    "mode of a layer": Kind(Double, inside(lambda v: v.eval()), lambda v, x: x * (2 if v.training else 3)),
    "forward of a layer": Kind(Double, inside(lambda v: setattr(v, "forward", lambda x: x * 3)), call),
    "class of a layer": Kind(Double, inside(lambda v: setattr(v, "__class__", Triple)), call),
    "layers of a network": Kind(
        lambda: dl.Network([Double(), Double()]), inside(lambda v: v.__setitem__(1, Triple())), call
    ),
    "length of a network": Kind(lambda: dl.Network([Double()]), inside(lambda v: v.append(Triple())), call),
    "function in a network": Kind(
        lambda: dl.Network([dl.tanh]), inside(lambda v: v.layers.__setitem__(0, dl.relu)), call
    ),
    "generator": Kind(lambda: dl.Generator(1), lambda v: dl.Generator(2), noise),
    "state of a generator": Kind(
        lambda: dl.Generator(1), inside(lambda v: v.load_state_dict(dl.Generator(2).state_dict())), noise
    ),
    "source of a generator": Kind(
        lambda: dl.Generator(1), inside(lambda v: setattr(v, "numpy", numpy.random.default_rng(2))), noise
    ),
    "attribute of a dataclass": Kind(Options, inside(set_scale), of),
    "list of a dataclass": Kind(
        Options, inside(lambda v: v.shifts.append(5.0)), lambda v, x: item(v.shifts, x)
    ),
    "frozen dataclass": Kind(FixedOptions, lambda v: dataclasses.replace(v, scale=3.0), of),
    "dataclass as a tuple": Kind(Options, inside(set_scale), lambda v, x: x * dataclasses.astuple(v)[0]),
    "dataclass as a dict": Kind(Options, inside(set_scale), lambda v, x: x * dataclasses.asdict(v)["scale"]),
    "slots of a dataclass": Kind(SlottedOptions, inside(set_scale), of),
    "namespace": Kind(lambda: types.SimpleNamespace(scale=2.0), inside(set_scale), of),
    "namespace in a list": Kind(
        lambda: [types.SimpleNamespace(scale=2.0)],
        inside(lambda v: set_scale(v[0])),
        lambda v, x: x * v[0].scale,
    ),
    "new attribute of a namespace": Kind(
        types.SimpleNamespace, inside(set_scale), lambda v, x: x * getattr(v, "scale", 2.0)
    ),
    "named tuple": Kind(lambda: Pair(2.0, 1.0), lambda v: v._replace(scale=3.0), of),
    "list in a named tuple": Kind(
        lambda: Pair([2.0], 1.0), inside(lambda v: v.scale.append(3.0)), lambda v, x: item(v.scale, x)
    ),
    "slots": Kind(lambda: Slotted(2.0), inside(set_scale), of),
    "attribute behind a property": Kind(WithProperty, inside(lambda v: setattr(v, "hidden", 4.0)), of),
    "attribute behind a delegate": Kind(Delegating, inside(lambda v: set_scale(v.inner)), of),
    "item behind a method": Kind(
        Table, inside(lambda v: v.items.update(scale=3.0)), lambda v, x: x * v["scale"]
    ),
    "callable object": Kind(Callable_, inside(set_scale), call),
    "attribute of a class": Kind(
        lambda: type("Of", (WithClassAttribute,), {"scale": 2.0}), inside(set_scale), of
    ),
    "attribute of an object's class": Kind(
        lambda: type("Of", (WithClassAttribute,), {"scale": 2.0})(), inside(lambda v: set_scale(type(v))), of
    ),
    "attribute that hides its class's": Kind(lambda: WithClassAttribute(), inside(set_scale), of),
    "class": Kind(lambda: Double, lambda v: Triple, lambda v, x: v()(x)),
    "chain of objects": Kind(
        lambda: Link(2.0, Link(3.0)), inside(lambda v: setattr(v.following, "following", Link(5.0))), linked
    ),
    "module": Kind(lambda: user_module("settings", scale=2.0), inside(set_scale), of),
}


# --- places ---------------------------------------------------------------------------------------


def user_module(name, source="", **names):
    """Return a new module, with these names and the code of a source."""
    module = types.ModuleType(f"law_{name}")
    vars(module).update(names)
    exec(source, vars(module))
    sys.modules[module.__name__] = module
    return module


def in_variable(value, use):
    def replace(other):
        nonlocal value
        value = other

    return lambda x: use(value, x), replace


def in_variable_of_a_called_function(value, use):
    inner, replace = in_variable(value, use)
    return lambda x: inner(x) + 1, replace


def in_global(value, use):
    module = user_module("globals", "def function(x): return use(value, x)", value=value, use=use)
    return module.function, lambda other: setattr(module, "value", other)


def in_global_of_a_called_function(value, use):
    module = user_module("globals", "def function(x): return use(value, x)", value=value, use=use)
    return lambda x: module.function(x) + 1, lambda other: setattr(module, "value", other)


def in_module(value, use):
    module = user_module("values", value=value)
    return lambda x: use(module.value, x), lambda other: setattr(module, "value", other)


def in_imported_module(value, use):
    module = user_module("imported", value=value)

    def function(x):
        import law_imported

        return use(law_imported.value, x)

    return function, lambda other: setattr(module, "value", other)


def in_default(value, use):
    def function(x, value=value):
        return use(value, x)

    return function, lambda other: setattr(function, "__defaults__", (other,))


def in_named_default(value, use):
    def function(x, *, value=value):
        return use(value, x)

    return function, lambda other: setattr(function, "__kwdefaults__", {"value": other})


class Holder(dl.Layer):
    def __init__(self, value, use):
        self.value = value
        self.use = use

    def forward(self, x):
        return self.use(self.value, x)


def in_layer(value, use):
    layer = Holder(value, use)
    return lambda x: layer(x), lambda other: setattr(layer, "value", other)


def in_layer_itself(value, use):
    layer = Holder(value, use)
    return layer, lambda other: setattr(layer, "value", other)


def in_layer_of_a_network(value, use):
    layer = Holder(value, use)
    network = dl.Network([layer, Double()])
    return network.forward, lambda other: setattr(layer, "value", other)


def in_list_of_a_layer(value, use):
    layer = Holder([value], lambda values, x: use(values[0], x))
    return lambda x: layer(x), lambda other: layer.value.__setitem__(0, other)


def in_dict_of_a_layer(value, use):
    layer = Holder({"a": {"b": value}}, lambda values, x: use(values["a"]["b"], x))
    return lambda x: layer(x), lambda other: layer.value["a"].update(b=other)


def in_object_of_a_layer(value, use):
    layer = Holder(types.SimpleNamespace(value=value), lambda holder, x: use(holder.value, x))
    return lambda x: layer(x), lambda other: setattr(layer.value, "value", other)


def in_class_of_a_layer(value, use):
    class Local(dl.Layer):
        pass

    def replace(other):
        Local.value = staticmethod(other) if callable(other) else other

    replace(value)
    Local.forward = lambda self, x: use(self.value, x)
    layer = Local()
    return lambda x: layer(x), replace


def in_base_of_a_class(value, use):
    class Base(dl.Layer):
        pass

    class Local(Base):
        def forward(self, x):
            return use(super().value, x)

    def replace(other):
        Base.value = staticmethod(other) if callable(other) else other

    replace(value)
    layer = Local()
    return lambda x: layer(x), replace


def in_object_with_a_method(value, use):
    class Model:
        def __init__(self):
            self.value = value

        def step(self, x):
            return use(self.value, x)

    model = Model()
    return model.step, lambda other: setattr(model, "value", other)


def behind_getattr(value, use):
    holder = types.SimpleNamespace(value=value)
    return lambda x: use(getattr(holder, "val" + "ue"), x), lambda other: setattr(holder, "value", other)


def behind_vars(value, use):
    holder = types.SimpleNamespace(value=value)
    return lambda x: use(vars(holder)["value"], x), lambda other: setattr(holder, "value", other)


def behind_a_partial(value, use):
    holder = {"value": value}
    function = functools.partial(lambda holder, x: use(holder["value"], x), holder)
    return function, lambda other: holder.update(value=other)


def behind_a_decorator(value, use):
    inner, replace = in_variable(value, use)

    @functools.wraps(inner)
    def function(x):
        return inner(x) * 1

    return function, replace


def behind_a_cached_function(value, use):
    holder = {"value": value}

    @functools.lru_cache
    def find():
        return holder

    return lambda x: use(find()["value"], x), lambda other: holder.update(value=other)


def behind_a_comprehension(value, use):
    holder = [value]
    return lambda x: sum(use(item, x) for item in holder), lambda other: holder.__setitem__(0, other)


def behind_a_property(value, use):
    class Local(dl.Layer):
        def __init__(self):
            self.hidden = value

        @property
        def value(self):
            return self.hidden

        def forward(self, x):
            return use(self.value, x)

    layer = Local()
    return lambda x: layer(x), lambda other: setattr(layer, "hidden", other)


def behind_a_pattern(value, use):
    holder = Options(scale=value)

    def function(x):
        match holder:
            case Options(scale=found):
                return use(found, x)
        raise AssertionError

    return function, lambda other: setattr(holder, "scale", other)


def behind_a_compiled_function(value, use):
    inner, replace = in_variable(value, use)
    compiled = dl.compile(inner)
    return lambda x: compiled(x) * 1, replace


def behind_a_cached_property(value, use):
    holder = {"value": value}

    class Local:
        @functools.cached_property
        def value(self):
            return holder

    return lambda x: use(Local().value["value"], x), lambda other: holder.update(value=other)


PLACES = {
    name: place
    for name, place in list(globals().items())
    if name.startswith(("in_", "behind_")) and callable(place)
}
