"""Every public function, class and method answers a keyword that it does not have with the right one."""

import copy
import dataclasses
import inspect
import pickle
import re
from types import FunctionType, ModuleType

import numpy
import pytest

import minidl as dl
from minidl.foreign_names import ATTRIBUTES, OPTIONS, PLACES
from minidl.keywords import NOT_OF_TENSORS
from minidl.primitives.primitive import Primitive

X = numpy.ones((4, 2), numpy.float32)
MODULES = {"data": dl.data, "initializers": dl.initializers, "linalg": dl.linalg, "random": dl.random}
MODULES |= {"schedules": dl.schedules}
CALLABLES = {name: getattr(dl, name) for name in dir(dl) if callable(getattr(dl, name))}
for prefix, module in MODULES.items():
    names = [name for name in vars(module) if not name.startswith("_")]
    CALLABLES |= {
        f"{prefix}.{name}": getattr(module, name) for name in names if callable(getattr(module, name))
    }

#: What is called with what the user has made: its keywords are those of a function of the user's.
OF_USERS = {name for name, x in CALLABLES.items() if isinstance(x, dl.Metric)}
FUNCTIONS = {
    name: x
    for name, x in CALLABLES.items()
    if isinstance(x, FunctionType) and x.__module__.startswith("minidl")
}
PRIMITIVES = {name: x for name, x in CALLABLES.items() if isinstance(x, Primitive)}
CLASSES = {
    name: x for name, x in CALLABLES.items() if isinstance(x, type) and x.__module__.startswith("minidl")
}


def arguments_of(function):
    """Return something for each argument that must be given: it never comes to be looked at."""
    parameters = [p for p in inspect.signature(function).parameters.values() if p.name != "self"]
    return [None for p in parameters if p.default is p.empty and p.kind is p.POSITIONAL_OR_KEYWORD]


def test_there_is_nothing_else_to_call():
    rest = set(CALLABLES) - set(FUNCTIONS) - set(PRIMITIVES) - set(CLASSES) - OF_USERS
    assert rest == {"data.Any", "initializers.Callable", "initializers.Initializer", "initializers.Shape"} | {
        "schedules.dataclass"
    }
    assert len(FUNCTIONS) > 100


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions(name):
    function = FUNCTIONS[name]
    with pytest.raises(TypeError, match=rf"{function.__name__}\(\) has no argument 'qqq': it takes "):
        function(*arguments_of(function), qqq=1)


@pytest.mark.parametrize("name", PRIMITIVES)
def test_primitives(name):
    with pytest.raises(TypeError, match=r"\w+\(\) has no argument 'qqq'"):
        PRIMITIVES[name](*[dl.ones(2)] * (PRIMITIVES[name].input_count or 1), qqq=1)


def test_primitives_take_their_inputs():
    x = dl.ones(2)
    with pytest.raises(TypeError, match=r"^relu\(\) takes 1 input, got 0$"):
        dl.relu()
    with pytest.raises(TypeError, match=r"^exp\(\) takes 1 input, got 2$"):
        dl.exp(x, x)
    with pytest.raises(TypeError, match=r"^add\(\) takes 2 inputs, got 3$"):
        dl.add(x, x, x)
    with pytest.raises(TypeError, match=r"^exp\(\) has no argument 'out'$"):
        dl.exp(x, out=x)


def own_init(cls):
    return "__init__" in dir(cls) and isinstance(cls.__init__, FunctionType)


@pytest.mark.parametrize(
    "name", [n for n, x in CLASSES.items() if own_init(x) and not issubclass(x, Exception)]
)
def test_classes(name):
    if CLASSES[name] in (dl.no_grad, dl.enable_grad, dl.Tensor):
        return  # the first two have no arguments by name, and users make a Tensor with tensor()
    arguments = [p for p in [dl.Parameter([1.0])] for _ in arguments_of(CLASSES[name].__init__)]
    if "parameters" in inspect.signature(CLASSES[name]).parameters:
        arguments[0] = [dl.Parameter([1.0])]
    with pytest.raises(TypeError, match=rf"{CLASSES[name].__name__}\(\) has no argument 'qqq': it takes "):
        CLASSES[name](*arguments, qqq=1)


METHODS = {
    f"{name}.{method}": function
    for name, cls in CLASSES.items()
    for method, function in inspect.getmembers(cls, inspect.isfunction)
    if not isinstance(inspect.getattr_static(cls, method), staticmethod)
    if not method.startswith("_") and function.__module__.startswith("minidl")
    if [*inspect.signature(function).parameters][1:]
    if not any(p.kind is p.VAR_KEYWORD for p in inspect.signature(function).parameters.values())
}


@pytest.mark.parametrize("name", METHODS)
def test_methods(name):
    function = METHODS[name]
    title = function.__qualname__.replace("(", r"\(")
    with pytest.raises(TypeError, match=rf"{title}\(\) has no argument 'qqq'"):
        function(None, *arguments_of(function), qqq=1)


def net():
    return dl.Network([dl.Dense(2, 3, seed=0)])


@pytest.mark.parametrize(
    ("call", "answer"),
    [
        (
            lambda: dl.Adam(net().parameters(), lr=1),
            "Adam() has no argument 'lr': it is called 'learning_rate'",
        ),
        (
            lambda: dl.Adam(net().parameters(), weight_decay=1),
            "Adam() has no argument 'weight_decay': it is called 'l2'",
        ),
        (lambda: dl.Adam(net().parameters(), betas=(0, 1)), "it is called 'beta1' and 'beta2' here"),
        (lambda: dl.Dense(2, units=3), "Dense() has no argument 'units': it is called 'out_features' here"),
        (lambda: dl.LSTM(2, units=3), "it is called 'hidden_features' here"),
        (lambda: dl.Conv2D(2, filters=3, kernel_size=3), "it is called 'out_channels' here"),
        (lambda: dl.Dense(2, 3, activation="relu"), "(activations are layers: dl.ReLU())"),
        (lambda: dl.sum(dl.ones(2), dim=0), "sum() has no argument 'dim': it is called 'axis' here"),
        (
            lambda: dl.ones(2).sum(keepdim=True),
            "Tensor.sum() has no argument 'keepdim': it is called 'keepdims'",
        ),
        (lambda: dl.schedules.Step(1, 2, gamma=1), "it is called 'factor' here"),
        (lambda: dl.Trainer(net(), dl.huber, MaxEpochs=1), "'epochs' is an option of Trainer.fit()"),
        (lambda: dl.Trainer(net(), dl.huber, epochs=1), "'epochs' is an option of Trainer.fit()"),
        (lambda: dl.Trainer(net(), dl.huber).fit(1, MaxEpochs=1), "it is called 'epochs' here"),
        (lambda: dl.Trainer(net(), dl.huber).fit(1, lr=1), "'learning_rate' is an option of the optimizer"),
        (lambda: dl.Dropout(raet=0.5), "did you mean 'rate'?"),
    ],
)
def test_foreign_keywords(call, answer):
    with pytest.raises(TypeError, match=re.escape(answer)) as caught:
        call()
    assert caught.value.__cause__ is None


def test_other_errors_stay_as_they_are():
    with pytest.raises(TypeError, match=r"^unsupported operand type\(s\) for \+"):
        dl.compile(lambda x, option: x + (1 + "a"), kernels="numpy")(dl.ones(1), option=1)
    with pytest.raises(TypeError, match="missing a required argument: 'out_features'"):
        dl.Dense(in_features=3)


def test_a_subclass_of_a_users_is_named():
    class Mine(dl.Dense):
        def __init__(self, **options):
            super().__init__(2, 3, **options)

    with pytest.raises(TypeError, match=r"^Mine\(\) has no argument 'use_bias': it is called 'bias' here$"):
        Mine(use_bias=False)


def test_answers_are_options_of_something():
    parameters = set()
    for function in [*FUNCTIONS.values(), *CLASSES.values(), *METHODS.values()]:
        if own_init(function) or isinstance(function, FunctionType):
            parameters |= set(inspect.signature(function).parameters)
    for foreign, answers in OPTIONS.items():
        for ours in (answers,) if isinstance(answers, str) else answers:
            if not ours.startswith("("):
                assert set(ours.split(", ")) <= parameters, (foreign, ours)
    assert set(PLACES) <= parameters


def test_functions_are_still_themselves():
    assert pickle.loads(pickle.dumps(dl.huber)) is dl.huber
    assert copy.deepcopy(dl.softmax) is dl.softmax
    assert list(inspect.signature(dl.softmax).parameters) == ["x", "axis"]
    assert dl.Dense.__init__.__doc__ == inspect.unwrap(dl.Dense.__init__).__doc__
    assert dl.linalg.matmul is dl.matmul


@pytest.mark.parametrize(
    ("make", "name", "answer"),
    [
        (lambda: dl.ones(2), "cuda", "here it is .to('gpu')"),
        (lambda: dl.ones(2), "exp", "it is a function: dl.exp(x)"),
        (net, "fit", "here it is dl.Trainer(network, loss).fit(x, y)"),
        (net, "named_parameter", "did you mean 'named_parameters'?"),
        (lambda: net()[0], "weigth", "did you mean 'weight'?"),
        (lambda: dl.Adam(net().parameters()), "lr", "here it is .learning_rate"),
        (lambda: dl.Trainer(net(), dl.huber), "train", "here it is .fit(x, y)"),
    ],
)
def test_attributes(make, name, answer):
    owner = make()
    with pytest.raises(
        AttributeError, match=re.escape(f"'{type(owner).__name__}' object has no attribute '{name}'")
    ) as e:
        getattr(owner, name)
    assert answer in str(e.value)
    assert not hasattr(owner, name)
    assert not hasattr(owner, "__cuda_array_interface__")


def test_attributes_that_are_not_here_are_not_listed():
    assert set(NOT_OF_TENSORS) == set(ATTRIBUTES["Tensor"])
    assert not {"cuda", "exp", "softmax"} & set(dir(dl.ones(2)))
    assert {"shape", "sum", "T"} <= set(dir(dl.ones(2)))
    assert not hasattr(dl.Tensor, "cuda")


def test_foreign_attributes_are_not_ours():
    objects = {"Tensor": dl.ones(2), "Layer": net(), "BaseOptimizer": dl.Adam(net().parameters())}
    objects["Trainer"] = dl.Trainer(net(), dl.huber)
    for kind, attributes in ATTRIBUTES.items():
        for name in attributes:
            assert kind not in objects or not hasattr(objects[kind], name), (kind, name)


def test_a_property_that_fails_says_why_itself():
    class Broken(dl.Layer):
        @property
        def size(self):
            return self.absent

    with pytest.raises(AttributeError, match="'Broken' object has no attribute 'absent'"):
        Broken().size  # noqa: B018


def test_only_what_is_minidls_is_changed():
    assert all(isinstance(module, ModuleType) for module in MODULES.values())
    assert not hasattr(dataclasses.dataclass, "answers_keywords")
    assert not hasattr(numpy.sum, "answers_keywords")


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: dl.Dense("a", 3), "Dense: in_features is an integer or None, got 'a'"),
        (lambda: dl.Dense(2.5, 3), "Dense: in_features is an integer or None, got 2.5"),
        (lambda: dl.Dense(2, None), "Dense: out_features is an integer, got None"),
        (lambda: dl.Dense(2, 3, bias="no"), "Dense: bias is True or False, got 'no'"),
        (lambda: dl.Dropout(None), "Dropout: rate is a number, got None"),
        (lambda: dl.BatchNorm(3, momentum="a"), "BatchNorm: momentum is a number, got 'a'"),
        (lambda: dl.LSTM(3, 2.5), "LSTM: hidden_features is an integer, got 2.5"),
        (lambda: dl.Softmax("a"), "Softmax: axis is an integer, got 'a'"),
        (lambda: dl.SGD(net().parameters(), momentum="a"), "SGD: momentum is a number, got 'a'"),
        (lambda: dl.SGD(net().parameters(), "a"), "SGD: learning_rate is a number or a schedule, got 'a'"),
        (lambda: dl.Adam(net().parameters(), clip_norm="a"), "Adam: clip_norm is a number or None, got 'a'"),
        (lambda: dl.LBFGS(net().parameters(), 1.5), "LBFGS: max_iterations is an integer, got 1.5"),
        (lambda: dl.schedules.Step(1, "a"), "Step: period is an integer, got 'a'"),
        (lambda: dl.huber(dl.ones(2), dl.ones(2), delta="a"), "huber: delta is a number, got 'a'"),
        (lambda: dl.Trainer(net(), dl.huber, seed=1.5), "Trainer: seed is an integer or None, got 1.5"),
        (
            lambda: dl.Trainer(net(), dl.huber).fit(1, 2, epochs=1.5),
            "epochs is an integer, got 1.5",
        ),
        (lambda: dl.Network(net()[0], dl.ReLU()), "Network() takes no more than layers by position; got 2"),
        (lambda: dl.Network([dl.ReLU]), "Network: entry 0 is a class: write ReLU(...)"),
        (lambda: dl.Network(3), "Network takes a list of Layers, got int: write Network([...])"),
        (lambda: dl.Reshape("a"), "Reshape takes lengths, which are integers, got ('a',)"),
        (lambda: dl.SGD(net()), "SGD takes a list of Parameters, got Network: write network.parameters()"),
        (lambda: dl.SGD(dl.Parameter([1.0])), "got Parameter: write [parameter]"),
        (lambda: dl.Trainer(net(), dl.huber, dl.Adam), "write Adam(network.parameters())"),
        (lambda: dl.Trainer(net(), "cross_entropy"), "it is called 'softmax_cross_entropy' here"),
        (lambda: dl.Trainer(net(), "huber"), "got the name 'huber': write dl.huber"),
        (lambda: dl.Trainer(net(), dl.huber, metrics=["accuracy"]), "write dl.accuracy"),
        (lambda: dl.Trainer(net(), dl.huber, metrics=dl.accuracy), "write metrics=[dl.accuracy]"),
        (lambda: dl.Trainer(net(), dl.huber, metrics=None), "metrics is a list of functions, got None"),
        (lambda: dl.Trainer(net(), dl.huber).fit(X, X, callbacks=print), "callbacks is a list of functions"),
    ],
)
def test_arguments_of_a_wrong_kind(call, message):
    with pytest.raises(TypeError, match=re.escape(message)):
        call()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: dl.Conv2D(3, 4, 3, padding="sam"), 'Conv2D: padding is "valid", "same", an integer'),
        (lambda: dl.Conv2D(3, 4, 3, padding=-1), "Conv2D: padding must not be negative"),
        (lambda: dl.MaxPool2D(2, padding="zz"), 'MaxPool2D: padding is "valid", "same", an integer'),
        (lambda: dl.BatchNorm(3, epsilon=-1), "BatchNorm: epsilon must not be negative, got -1"),
    ],
)
def test_options_of_a_wrong_value(call, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        call()


def test_scalars_of_numpy_are_taken():
    assert repr(dl.Dense(numpy.int64(2), numpy.int32(3), bias=numpy.bool_(True))) == "Dense(2, 3)"
    adam = dl.Adam(net().parameters(), learning_rate=numpy.float32(0.5), beta1=numpy.float64(0.5), l2=0)
    assert "beta1=0.5" in repr(adam)
    assert dl.Dropout(numpy.float16(0.5)).rate == 0.5
