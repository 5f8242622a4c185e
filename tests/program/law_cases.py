"""Scripts about training, gradients, aliases, arguments and results: what a table of values does not reach.

Each takes a `World`: see law.py. ``CASES`` maps names to scripts, and so does ``MAY_BE_REFUSED``;
``REFUSED`` maps them to (script, text of the refusal).
"""

import contextlib
import copy
import datetime
import itertools
import pickle
import random
import subprocess
import sys
import tempfile
import time
import types
from pathlib import Path

import numpy

import minidl as dl

X = dl.tensor([[1.0, -2.0, 3.0], [4.0, 5.0, -6.0]])
V = dl.tensor([1.0, 2.0, 3.0])

CASES = {}
MAY_BE_REFUSED = {}
REFUSED = {}


def case(function):
    """Enter a script whose compiled function does what the plain one does."""
    CASES[function.__name__] = function
    return function


def may_be_refused(function):
    """Enter a script whose compiled function does what the plain one does, or is refused."""
    MAY_BE_REFUSED[function.__name__] = function
    return function


def refused(text):
    """Enter a script whose compiled function is refused with a message that holds a text."""

    def enter(function):
        REFUSED[function.__name__] = (function, text)
        return function

    return enter


def parameter(*values):
    return dl.Parameter(list(values) or [1.0, 2.0, 3.0])


def make_step(world, w, optimizer):
    def step(x):
        loss = (w * x * w).sum()
        loss.backward()
        optimizer.step()
        return loss

    world.watch(w, optimizer)
    return world.compile(step)


# --- optimizers -----------------------------------------------------------------------------------

OPTIMIZERS = {
    "SGD": lambda p: dl.SGD(p, 0.1, momentum=0.5),
    "RMSProp": lambda p: dl.RMSProp(p, 0.1),
    "Adam": lambda p: dl.Adam(p, 0.1, l2=0.01),
    "AdamW": lambda p: dl.AdamW(p, 0.1),
}
CHANGES = {
    "learning_rate": lambda o: setattr(o, "learning_rate", 0.01),
    "learning_rate to zero": lambda o: setattr(o, "learning_rate", 0.0),
    "learning_rate to a schedule": lambda o: setattr(o, "learning_rate", dl.schedules.Step(0.1, 1)),
    "learning_rate to a lambda": lambda o: setattr(o, "learning_rate", lambda n: 0.1 / (n + 1)),
    "assigned learning_rate": lambda o: o.learning_rate.assign(0.01),
    "set_learning_rate": lambda o: o.set_learning_rate(0.01),
    "step_count": lambda o: o.step_count.assign(5.0),
    "l2": lambda o: setattr(o, "l2", 0.5),
    "clip_value": lambda o: setattr(o, "clip_value", 0.1),
    "clip_norm": lambda o: setattr(o, "clip_norm", 0.1),
    "clip_global_norm": lambda o: setattr(o, "clip_global_norm", 0.1),
    "momentum": lambda o: setattr(o, "momentum", 0.9),
    "nesterov": lambda o: setattr(o, "nesterov", True),
    "beta1": lambda o: setattr(o, "beta1", 0.5),
    "beta2": lambda o: setattr(o, "beta2", 0.5),
    "epsilon": lambda o: setattr(o, "epsilon", 0.5),
    "decay": lambda o: setattr(o, "decay", 0.5),
    "state": lambda o: [x.assign(x + 1.0) for state in o.states for x in state.values()],
    "requires_grad": lambda o: setattr(o.parameters[0], "requires_grad", False),
    "learning_rate_factor": lambda o: setattr(o.parameters[0], "learning_rate_factor", 0.5),
    "frozen by its factor": lambda o: setattr(o.parameters[0], "learning_rate_factor", 0),
    "l2_factor": lambda o: setattr(o.parameters[0], "l2_factor", 3.0),
    "data": lambda o: setattr(o.parameters[0], "data", numpy.array([5.0, 6.0, 7.0], "float32")),
    "assigned parameter": lambda o: o.parameters[0].assign([5.0, 6.0, 7.0]),
    "grad": lambda o: setattr(o.parameters[0], "grad", dl.tensor([1.0, 1.0, 1.0])),
    "grad of a parameter that is not used": lambda o: setattr(o.parameters[2], "grad", dl.ones(3)),
    "fewer parameters": lambda o: (o.parameters.pop(), o.states.pop()),
    "other parameters": lambda o: (
        setattr(o, "parameters", o.parameters[:1]),
        setattr(o, "states", o.states[:1]),
    ),
    "order of parameters": lambda o: (o.parameters.reverse(), o.states.reverse()),
    "a loaded state": lambda o: o.load_state_dict({n: x + 1 for n, x in o.state_dict().items()}),
    "update": lambda o: setattr(
        o, "update", lambda parameter, gradient, rate, **state: parameter.assign(parameter - gradient)
    ),
    "zero_grad": lambda o: o.zero_grad(),
}


def changed_optimizer(optimizer, change, back):
    def script(world):
        w, v, unused = parameter(), parameter(4.0, 5.0, 6.0), parameter()
        o = OPTIMIZERS[optimizer]([w, v, unused])
        world.watch(w, v, unused, o)

        @world.compile
        def step(x):
            loss = (w * x * w).sum() + (v * x).mean()
            if loss.requires_grad:
                loss.backward()
                o.step()
            return loss

        step(V)
        if not back:
            step(V)
        CHANGES[change](o)
        step(V)
        step(V * 2)
        if back:
            w.requires_grad, w.learning_rate_factor, w.l2_factor, o.l2 = True, 1.0, 0.0, 0.0
            o.learning_rate = 0.2
            step(V)
            step(V)

    return script


for name, change in itertools.product(OPTIMIZERS, CHANGES):
    for back in (False, True) if name == "SGD" else (False,):
        CASES[f"{name}: {change}{' and back' * back}"] = changed_optimizer(name, change, back)


# --- gradients ------------------------------------------------------------------------------------


@case
def gradients_left_over(world):
    w = parameter()
    o = dl.SGD([w], 0.1, momentum=0)
    world.watch(w, o)

    @world.compile
    def step(x):
        (w * x).sum().backward()
        o.step()
        (w * x).sum().backward()
        return w * 1

    for _ in range(4):
        step(V)


@case
def gradients_accumulated_over_calls(world):
    w = parameter()
    o = dl.Adam([w], 0.1)
    world.watch(w, o)
    add = world.compile(lambda x: (w * w * x).sum().backward())
    step = world.compile(lambda: o.step())
    for _ in range(3):
        for i in range(3):
            add(V * i)
        step()


@case
def gradients_accumulated_then_stepped_plainly(world):
    w = parameter()
    o = dl.Adam([w], 0.1)
    world.watch(w, o)
    add = world.compile(lambda x: (w * w * x).sum().backward())
    for _ in range(3):
        add(V)
        add(V * 2)
        o.step()
        world.note(w, o)


@case
def plain_gradients_then_compiled_step(world):
    w = parameter()
    o = dl.SGD([w], 0.1)
    world.watch(w, o)
    step = world.compile(lambda: o.step())
    for i in range(4):
        (w * w * V).sum().backward()
        if i % 2:
            (w * V).sum().backward()
        step()


@case
def two_optimizers_as_in_a_gan(world):
    g, d = parameter(), parameter(0.5, 1.0, 1.5)
    first, second = dl.Adam([g], 0.1), dl.SGD([d], 0.1)
    world.watch(g, d, first, second)

    @world.compile
    def step(x):
        real = (d * x).sum() - (d * (g * x).detach()).sum()
        real.backward()
        second.step()
        fake = (d * g * x).sum()
        fake.backward()
        first.step()
        return real, fake

    for i in range(4):
        step(V * (i + 1))


@case
def two_optimizers_in_two_functions(world):
    g, d = parameter(), parameter(0.5, 1.0, 1.5)
    first, second = dl.Adam([g], 0.1), dl.SGD([d], 0.1)
    world.watch(g, d, first, second)

    def train_d(x):
        (d * g.detach() * x).sum().backward()
        second.step()

    def train_g(x):
        (d * g * x).sum().backward()
        first.step()

    train_d, train_g = world.compile(train_d), world.compile(train_g)
    for _ in range(4):
        train_d(V)
        train_g(V)


@case
def gradient_set_by_hand_before(world):
    w = parameter()
    step = make_step(world, w, dl.SGD([w], 0.1))
    step(V)
    w.grad = dl.ones(3)
    step(V)
    w.grad = dl.tensor([3.0, 2.0, 1.0])
    step(V)
    step(V)


@case
def gradient_set_inside(world):
    w = world.watch(parameter())

    @world.compile
    def step(x):
        w.grad = x * 2
        return w * 1

    for i in range(3):
        step(V * i)
    w.grad = None
    step(V)


@case
def gradient_kept_as_it_is(world):
    w = world.watch(parameter())
    step = world.compile(lambda x: x * (2.0 if w.grad is None else 3.0))
    step(V)
    w.grad = dl.ones(3)
    step(V)
    w.grad = None
    step(V)


@case
def gradient_read_inside(world):
    w = world.watch(parameter())
    step = world.compile(lambda x: x * w.grad)
    for i in range(3):
        w.grad = dl.full((3,), float(i))
        step(V)


@may_be_refused
def gradient_assigned_inside(world):
    w = world.watch(parameter())
    kept = dl.zeros(3)
    w.grad = kept
    step = world.compile(lambda x: w.grad.assign(w.grad + x))
    world.watch(kept)
    for _ in range(3):
        step(V)


@case
def gradient_that_is_a_kept_tensor(world):
    w = world.watch(parameter())
    step = world.compile(lambda x: (w * x).sum().backward())
    step(V)
    kept = w.grad
    world.note(kept)
    step(V)
    world.note(kept)
    w.grad = kept
    step(V)
    world.note(kept)


@case
def gradient_clipped_by_hand(world):
    w = parameter()
    o = dl.SGD([w], 0.1)
    world.watch(w, o)

    @world.compile
    def step(x):
        (w * w * x).sum().backward()
        w.grad = dl.clip(w.grad, -1.0, 1.0)
        o.step()

    for _ in range(3):
        step(V)


@case
def zero_grad_inside(world):
    w = parameter()
    o = dl.SGD([w], 0.1)
    world.watch(w, o)

    @world.compile
    def step(x):
        o.zero_grad()
        (w * w * x).sum().backward()
        o.step()

    step(V)
    w.grad = dl.ones(3)
    step(V)
    step(V)


@case
def gradient_of_a_tensor_from_outside(world):
    x = world.watch(dl.tensor([1.0, 2.0, 3.0], requires_grad=True))
    step = world.compile(lambda y: (x * x * y).sum().backward())
    for _ in range(3):
        step(V)
    x.grad = None
    step(V)
    x.requires_grad = False
    y = world.watch(parameter())
    step = world.compile(lambda z: (x * y * z).sum().backward())
    step(V)
    x.requires_grad = True
    step(V)


@case
def gradient_of_an_argument(world):
    step = world.compile(lambda x: dl.grad((x * x).sum(), x))
    for i in range(3):
        step(dl.tensor([1.0 + i, 2.0], requires_grad=True))


@case
def gradient_left_in_an_argument(world):
    x = world.watch(dl.tensor([1.0, 2.0, 3.0], requires_grad=True))
    step = world.compile(lambda x: (x * x).sum().backward())
    for _ in range(3):
        step(x)
    x.grad = None
    step(x)


@case
def gradient_left_in_a_parameter_argument(world):
    w = world.watch(parameter())
    step = world.compile(lambda w, x: (w * w * x).sum().backward())
    for _ in range(3):
        step(w, V)
    v = world.watch(parameter(4.0, 5.0, 6.0))
    step(v, V)
    step(w, V)


@case
def gradient_of_several_arguments(world):
    a, b = (dl.tensor([1.0, 2.0, 3.0], requires_grad=True) for _ in range(2))
    world.watch(a, b)
    step = world.compile(lambda a, b: (a * b * b).sum().backward())
    step(a, b)
    step(a, b)
    step(a, a)
    b.grad = None
    step(b, a)


@case
def second_derivatives(world):
    w = world.watch(parameter())

    @world.compile
    def step(x):
        g = dl.grad((w * w * w * x).sum(), w, create_graph=True)
        (g * g).sum().backward()
        return g.detach()

    for _ in range(3):
        step(V)


@case
def requires_grad_switched_inside(world):
    w = world.watch(parameter())

    @world.compile
    def step(x):
        w.requires_grad = False
        y = (w * x).sum()
        w.requires_grad = True
        (w * w * x).sum().backward()
        return y

    step(V)
    step(V)


@case
def freezing_of_a_layer(world):
    network = dl.Network([dl.Dense(3, 4, seed=0), dl.Tanh(), dl.Dense(4, 1, seed=1)])
    o = dl.Adam(network.parameters(), 0.1)
    world.watch(network, o)

    @world.compile
    def step(x):
        loss = (network(x) * network(x)).mean()
        loss.backward()
        o.step()
        return loss

    step(X)
    for x in network[0].parameters():
        x.requires_grad = False
    step(X)
    step(X)
    for x in network[0].parameters():
        x.requires_grad = True
    step(X)
    network[2].weight.requires_grad = False
    step(X)


@case
def gradients_on_and_off(world):
    w = world.watch(parameter())

    @world.compile
    def step(x):
        y = (w * x).sum()
        if y.requires_grad:
            y.backward()
        return y

    step(V)
    with dl.no_grad():
        step(V)
    step(V)
    with dl.no_grad():
        step(V)


@case
def replaced_head(world):
    class Model(dl.Layer):
        def __init__(self):
            self.body, self.head = dl.Dense(3, 3, seed=0), dl.Dense(3, 1, seed=1)

        def forward(self, x):
            return self.head(dl.tanh(self.body(x)))

    model = world.watch(Model())
    step = world.compile(lambda x: model(x).sum().backward())
    step(X)
    model.head = dl.Dense(3, 2, seed=2)
    step(X)
    model.head = dl.Dense(3, 2, seed=2)
    step(X)
    model.body.bias = None
    step(X)
    model.astype("float64")
    step(X.astype("float64"))


@case
def batch_norm_in_both_modes(world):
    network = world.watch(dl.Network([dl.BatchNorm(3), dl.Dropout(0.5, seed=3)]))
    step = world.compile(lambda x: network(x))
    for i in range(6):
        network.train(i % 3 != 2)
        step(X * i)
    network[0].momentum = 0.7
    step(X)
    network[0].train()
    step(X)
    network[1].rate = 0.1
    step(X)


@case
def evaluating_inside(world):
    network = world.watch(dl.Network([dl.BatchNorm(3), dl.Dropout(0.5, seed=3)]))

    @world.compile
    def step(x):
        with network.evaluating():
            quiet = network(x)
        return quiet, network(x)

    step(X)
    step(X)
    network.eval()
    step(X)


# --- aliases --------------------------------------------------------------------------------------

ALIASES = {
    "detach": lambda w: w.detach(),
    "slice": lambda w: w.detach()[1:],
    "part": lambda w: w.detach()[0],
    "transpose": lambda w: w.detach().T,
    "reversed": lambda w: w.detach()[::-1],
    "reshape": lambda w: w.detach().reshape(-1),
    "copy": lambda w: w.copy(),
    "tensor of the same array": lambda w: dl.Tensor(w.data),
    "tensor of a part of the array": lambda w: dl.Tensor(w.data[1:]),
}
READ = {
    "before": lambda w, alias, x: (alias * 1, w.assign(w * 2 + x))[:1],
    "after": lambda w, alias, x: (w.assign(w * 2 + x), alias * 1)[1:],
    "before and after": lambda w, alias, x: (alias * 1, w.assign(w * 2 + x), alias * 1)[::2],
    "never": lambda w, alias, x: (w.assign(w * 2 + x), w * 1)[1:],
    "between two": lambda w, alias, x: (w.assign(w * 2 + x), alias * 1, w.assign(w - 1), alias * 1)[1::2],
}


def alias_outside(make, read):
    def script(world):
        w = dl.Parameter([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])
        alias = ALIASES[make](w)
        world.watch(w, alias)
        step = world.compile(lambda x: READ[read](w, alias, x))
        for _ in range(3):
            step(X)
        w.assign(X)
        step(X)
        alias.assign(alias * 0 + 7.0)
        step(X)

    return script


for make, read in itertools.product(ALIASES, READ):
    MAY_BE_REFUSED[f"alias {make}, read {read}"] = alias_outside(make, read)


def view_inside(make, read):
    def script(world):
        w = world.watch(dl.Parameter([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]))
        step = world.compile(lambda x: READ[read](w, ALIASES[make](w), x))
        for _ in range(3):
            step(X)
        w.assign(X)
        step(X)

    return script


for make, read in itertools.product(
    ["detach", "slice", "part", "transpose", "reversed", "reshape", "copy"], READ
):
    MAY_BE_REFUSED[f"view inside {make}, read {read}"] = view_inside(make, read)


@may_be_refused
def argument_that_is_assigned(world):
    w, v = (world.watch(dl.tensor([1.0, 2.0, 3.0])) for _ in range(2))

    @world.compile
    def step(x):
        x.assign(x * 2)
        return x + 1

    step(w)
    step(w)
    step(v)


@may_be_refused
def parameter_argument_that_is_assigned(world):
    w, v = parameter(), parameter()
    world.watch(w, v)

    @world.compile
    def step(p, x):
        p.assign(p * x)
        return p + 1

    step(w, V)
    step(w, V)
    step(v, V)


@may_be_refused
def two_arguments_of_one_array(world):
    step = world.compile(lambda a, b: (a * 2 + b, b - a))
    x = dl.tensor([1.0, 2.0, 3.0])
    step(x, x)
    step(x, V)
    step(x, x.detach())
    step(V, x)


@may_be_refused
def returned_state(world):
    w = world.watch(parameter())

    @world.compile
    def step(x):
        w.assign(w + x)
        return w.detach(), x

    step(V)
    step(V)


# --- results kept in attributes -------------------------------------------------------------------


class Encoder(dl.Layer):
    def __init__(self):
        self.dense = dl.Dense(3, 2, seed=0)
        self.code = None

    def forward(self, x):
        self.code = dl.tanh(self.dense(x))
        return self.code * 2


@case
def result_kept_in_an_attribute(world):
    model = Encoder()
    step = world.compile(lambda x: model(x))
    for i in range(3):
        step(X * i)
        world.note(model.code)
    model.code = None
    step(X)
    world.note(model.code * 2)
    copy.deepcopy(model)


@case
def result_kept_and_read_at_the_next_call(world):
    class Memory(dl.Layer):
        def __init__(self):
            self.last = dl.zeros(3)

        def forward(self, x):
            y = x + self.last.detach()
            self.last = y * 0.5
            return y

    model = Memory()
    step = world.compile(lambda x: model(x))
    for i in range(5):
        step(V * i)
        world.note(model.last)
    model.last = dl.ones(3)
    step(V)


@case
def attribute_that_counts(world):
    class Counting(dl.Layer):
        def __init__(self):
            self.calls = 0

        def forward(self, x):
            self.calls += 1
            return x * self.calls

    model = world.watch(Counting())
    step = world.compile(lambda x: model(x))
    for _ in range(6):
        step(V)


@case
def attribute_that_counts_and_is_not_read(world):
    class Counting(dl.Layer):
        def __init__(self):
            self.calls = 0

        def forward(self, x):
            self.calls += 1
            return x * 2

    model = world.watch(Counting())
    step = world.compile(lambda x: model(x))
    for _ in range(6):
        step(V)


@case
def attribute_that_is_set_to_a_constant(world):
    class Marking(dl.Layer):
        def __init__(self):
            self.seen = False

        def forward(self, x):
            self.seen = True
            self.shape = x.shape
            return x * 2

    model = world.watch(Marking())
    step = world.compile(lambda x: model(x))
    step(V)
    model.seen = False
    step(V)
    step(X)
    step(V)


@case
def attribute_set_once(world):
    class Lazy(dl.Layer):
        def __init__(self):
            self.scale = None

        def forward(self, x):
            if self.scale is None:
                self.scale = 2.0
            return x * self.scale

    model = world.watch(Lazy())
    step = world.compile(lambda x: model(x))
    for _ in range(3):
        step(V)
    model.scale = 5.0
    step(V)
    model.scale = None
    step(V)


@case
def results_kept_in_a_list_of_a_layer(world):
    class Keeping(dl.Layer):
        def __init__(self):
            self.kept = []

        def forward(self, x):
            self.kept.append(x * 3)
            return x * 2

    model = Keeping()
    step = world.compile(lambda x: model(x))
    for _ in range(5):
        step(V)
    world.note(model.kept)


@case
def results_kept_in_a_new_list(world):
    class Keeping(dl.Layer):
        def __init__(self):
            self.kept = []

        def forward(self, x):
            self.kept = [x * 3, {"a": (x * 4, 1.0)}]
            return x * 2

    model = Keeping()
    step = world.compile(lambda x: model(x))
    for i in range(4):
        step(V * i)
        world.note(model.kept)
    kept = model.kept
    step(V)
    world.note(kept)


@case
def results_kept_in_an_outer_list(world):
    kept = []

    @world.compile
    def step(x):
        kept.append(x * 2)
        return x * 3

    for i in range(5):
        step(V * i)
    world.note(kept)


@case
def results_kept_in_a_dict(world):
    kept = {}

    @world.compile
    def step(x):
        kept["last"] = x * 2
        return x * 3

    for i in range(5):
        step(V * i)
        world.note(kept)


@case
def results_kept_in_an_object(world):
    kept = types.SimpleNamespace(last=None)

    @world.compile
    def step(x):
        kept.last = x * 2
        return x * 3

    for i in range(5):
        step(V * i)
        world.note(kept.last)


@case
def results_kept_in_a_new_attribute_of_an_object(world):
    class Holder:
        pass

    kept = Holder()

    @world.compile
    def step(x):
        kept.last = x * 2
        return x * 3

    for i in range(5):
        step(V * i)
        world.note(kept.last)


@case
def results_kept_in_a_slot(world):
    class Holder:
        __slots__ = ("last",)

    kept = Holder()

    @world.compile
    def step(x):
        kept.last = x * 2
        return x * 3

    for i in range(5):
        step(V * i)
        world.note(kept.last)


@case
def results_kept_in_a_variable(world):
    kept = None

    @world.compile
    def step(x):
        nonlocal kept
        kept = x * 2
        return x * 3

    for i in range(5):
        step(V * i)
        world.note(kept)


@case
def results_kept_in_a_function_attribute(world):
    def step(x):
        step.last = x * 2
        return x * 3

    compiled = world.compile(step)
    for i in range(5):
        compiled(V * i)
        world.note(step.last)


@case
def results_kept_in_a_class(world):
    class Holder(dl.Layer):
        last = None

        def forward(self, x):
            Holder.last = x * 2
            return x * 3

    model = Holder()
    step = world.compile(lambda x: model(x))
    for i in range(5):
        step(V * i)
        world.note(Holder.last)


@case
def a_moving_average_in_an_attribute(world):
    class Average(dl.Layer):
        def __init__(self):
            self.average = dl.zeros(3)

        def forward(self, x):
            self.average = self.average * 0.9 + x.detach() * 0.1
            return x - self.average

    model = Average()
    step = world.compile(lambda x: model(x))
    for i in range(5):
        step(V * i)
        world.note(model.average)


@case
def counter_in_a_variable(world):
    count = 0

    @world.compile
    def step(x):
        nonlocal count
        count += 1
        return x * 2

    for _ in range(6):
        step(V)
        world.note(count)


@case
def optimizer_attribute_that_counts(world):
    class Counting(dl.SGD):
        calls = 0

        def update(self, parameter, gradient, rate, **state):
            self.calls += 1
            super().update(parameter, gradient, rate, **state)

    w = parameter()
    step = make_step(world, w, Counting([w], 0.1))
    for _ in range(5):
        step(V)


# --- what cannot be guarded -----------------------------------------------------------------------


@refused("")
def numpy_randomness(world):
    world.compile(lambda x: x + dl.tensor(numpy.random.random(3)))(V)  # noqa: NPY002


@refused("")
def numpy_generator(world):
    source = numpy.random.default_rng(0)
    world.compile(lambda x: x + dl.tensor(source.normal(size=3)))(V)


@refused("")
def new_numpy_generator(world):
    world.compile(lambda x: x + dl.tensor(numpy.random.default_rng().normal(size=3)))(V)


@refused("")
def python_randomness(world):
    world.compile(lambda x: x * random.random())(V)


@refused("")
def python_randomness_that_decides(world):
    source = random.Random(1)

    def step(x):
        y = x * source.choice([2.0, 3.0, 4.0])
        return y + source.choice([2.0, 3.0, 4.0])

    world.compile(step)(V)


@refused("")
def randomness_of_whether(world):
    """A draw that decides nothing this time."""
    source = random.Random(1)
    world.compile(lambda x: x * 2 if source.random() < 2 else x)(V)


@refused("")
def clock(world):
    world.compile(lambda x: x * (time.perf_counter_ns() % 1000))(V)


@refused("iterator")
def an_iterator(world):
    numbers = iter([1.0, 2.0, 3.0, 4.0, 5.0])
    world.compile(lambda x: x * next(numbers))(V)


@refused("iterator")
def a_count(world):
    numbers = itertools.count(1)
    world.compile(lambda x: x * next(numbers))(V)


@refused("iterator")
def a_generator_function(world):
    def numbers():
        yield from (1.0, 2.0, 3.0, 4.0)

    stream = numbers()
    world.compile(lambda x: x * next(stream))(V)


@refused(".data")
def data_read(world):
    w = parameter()
    world.compile(lambda x: x * dl.tensor(w.data))(V)


@refused("numpy()")
def numpy_read(world):
    w = parameter()
    world.compile(lambda x: x * dl.tensor(w.numpy()))(V)


@refused("item()")
def item_read(world):
    world.compile(lambda x: x * x.sum().item())(V)


@refused("truth")
def branch_by_value(world):
    world.compile(lambda x: x if x.sum() > 0 else -x)(V)


@refused("")
def gradient_read_as_an_array(world):
    w = parameter()

    def step(x):
        (w * x).sum().backward()
        return x * dl.tensor(w.grad.data)

    world.compile(step)(V)


@refused("reads a clock")
def clock_in_whole_seconds(world):
    start = time.time()
    world.compile(lambda x: x + int(time.time() - start) // 2)(V)


@refused("reads a clock")
def date_of_today(world):
    world.compile(lambda x: x * datetime.date.today().year)(V)


@refused("reads a clock")
def date_of_today_of_a_class_of_the_users(world):
    class Day(datetime.date):
        pass

    world.compile(lambda x: x * Day.today().year)(V)


@case
def year_of_a_date_that_is_known(world):
    day = datetime.date(2020, 1, 1)
    step = world.compile(lambda x: x * int(day.strftime("%Y")))
    for _ in range(3):
        world.note(step(V))


@refused("reads a clock")
def clock_in_a_function_that_is_called(world):
    def seconds():
        return time.monotonic() // 1000

    def step(x):
        try:
            return x * seconds()
        except Exception:
            return x

    world.compile(step)(V)


@case
def clock_that_is_not_read(world):
    def seconds():
        return time.time()

    step = world.compile(lambda x: x * 2 if x.shape == (3,) else x * seconds())
    step(V)
    step(V)


@refused("opens the file")
def a_file(world):
    path = numbers_file()
    world.compile(lambda x: x * float(path.read_text()))(V)


@refused("opens the file")
def a_file_of_numpy(world):
    path = numbers_file()
    world.compile(lambda x: x * numpy.loadtxt(path))(V)


@refused("lists a folder")
def a_folder(world):
    folder = numbers_file().parent
    world.compile(lambda x: x * len(list(folder.iterdir())))(V)


@refused("starts a process")
def another_process(world):
    command = [sys.executable, "-c", "print(2)"]
    world.compile(lambda x: x * float(subprocess.check_output(command)))(V)


@refused("item()")
def a_refusal_that_is_caught(world):
    def step(x):
        try:
            return x * float(x.sum())
        except Exception:
            return x

    world.compile(step)(V)


@refused(".data")
def a_refusal_that_is_suppressed(world):
    w = parameter()

    def step(x):
        with contextlib.suppress(RuntimeError):
            x = x * dl.tensor(w.data)
        return x

    world.compile(step)(V)


@case
def a_module_that_is_imported_inside(world):
    def step(x):
        import colorsys

        return x * colorsys.ONE_THIRD

    world.compile(step)(V)


def numbers_file():
    """Return a file that holds the number 2, in a folder of its own."""
    path = Path(tempfile.mkdtemp()) / "number.txt"
    path.write_text("2.0")
    return path


# --- exceptions -----------------------------------------------------------------------------------


class Trouble(Exception):
    """What goes wrong in these cases."""


@case
def exception_in_the_step(world):
    w = parameter()
    o = dl.Adam([w], 0.1)
    generator = dl.Generator(0)
    settings = types.SimpleNamespace(fails=True, calls=0)
    model = dl.Network([dl.BatchNorm(3)])
    world.watch(w, o, generator, settings, model)

    @world.compile
    def step(x):
        noise = dl.random.normal((2, 3), generator=generator)
        (w * model(x) * noise).sum().backward()
        model.extra = 3
        if settings.fails:
            raise Trouble
        o.step()
        return w * 1

    if world.options is not None:
        for _ in range(2):
            with contextlib.suppress(Trouble):
                step(X)
    else:
        world.log += ["Trouble"] * 2
    settings.fails = False
    step(X)
    step(X)


# --- copies ---------------------------------------------------------------------------------------


@case
def copied_optimizer(world):
    w = parameter()
    o = dl.Adam([w], 0.1)
    step = make_step(world, w, o)
    step(V)
    step(V)
    w2, o2 = copy.deepcopy((w, o))
    step2 = make_step(world, w2, o2)
    step2(V)
    step(V)
    world.note(o2.parameters[0] is w2)
    w3, o3 = pickle.loads(pickle.dumps((w, o)))
    make_step(world, w3, o3)(V)


@case
def copied_network(world):
    network = dl.Network([dl.Dense(3, 2, seed=0), dl.Dropout(0.5, seed=1)])
    step = world.compile(lambda x: network(x))
    step(X)
    twin = copy.deepcopy(network)
    other = pickle.loads(pickle.dumps(network))
    for one in (twin, other, network):
        world.compile(lambda x, one=one: one(x))(X)


@case
def copies_made_inside(world):
    w = parameter()
    layer = world.watch(dl.Dense(3, 3, seed=0))

    def f(x):
        leaf = dl.Parameter(x * w)
        twin = copy.deepcopy(layer)
        loss = (
            copy.deepcopy(x) * copy.copy(x * 2) * copy.deepcopy(w) * leaf + twin(leaf.reshape(1, 3))
        ).sum()
        loss.backward()
        return loss, leaf.grad, twin.weight.grad

    step = world.compile(f)
    step(V)
    step(V * 3)
    w.assign(w * 2)
    layer.weight.assign(layer.weight * 2)
    step(V)


@case
def methods_of_several_instances(world):
    class Model(dl.Layer):
        def __init__(self, scale):
            self.scale = scale

        @world.compile
        def forward(self, x):
            return x * self.scale

    one, two = Model(2.0), Model(3.0)
    for _ in range(2):
        one(V)
        two(V)
    one.scale = 4.0
    one(V)
    two(V)
    two.scale = one.scale
    two(V)


@case
def the_same_function_twice(world):
    w = world.watch(parameter())

    def step(x):
        w.assign(w * 0.5 + x)
        return w * 2

    one, two = world.compile(step), world.compile(step)
    for _ in range(2):
        one(V)
        two(V)


@case
def compiled_inside_compiled(world):
    w = world.watch(parameter())

    @world.compile
    def inner(x):
        w.assign(w + x)
        return w * 2

    def outer(x):
        return inner.target(x) + w if world.options is not None else inner.__wrapped__(x) + w

    outer = world.compile(outer)
    for _ in range(3):
        outer(V)
        inner(V)


@case
def recursion(world):
    settings = types.SimpleNamespace(depth=3)

    def power(x, n):
        return x if n == 0 else power(x, n - 1) * x

    step = world.compile(lambda x: power(x, settings.depth))
    step(V)
    settings.depth = 2
    step(V)
    step(V)


# --- Trainers -------------------------------------------------------------------------------------


def trainer(world, **options):
    network = dl.Network([dl.Dense(3, 4, seed=0), dl.Tanh(), dl.Dense(4, 1, seed=1)])
    compile = False if world.options is None else world.options
    return dl.Trainer(
        network,
        dl.mean_squared_error,
        dl.SGD(network.parameters(), 0.1),
        device="cpu",
        compile=compile,
        seed=0,
        **options,
    )


DATA = numpy.linspace(-1, 1, 24, dtype="float32").reshape(8, 3)
TARGETS = DATA[:, :1] * 2


def fitted(world, t, **options):
    history = t.fit(DATA, TARGETS, epochs=2, batch_size=4, verbose=False, **options)
    world.note([*history.steps["loss"]], t.network.state_dict(), t.predict(DATA), t.evaluate(DATA, TARGETS))


def changed_trainer(change):
    def script(world):
        t = trainer(world, metrics=[dl.rmse])
        fitted(world, t)
        change(t)
        fitted(world, t)
        fitted(world, t)

    return script


def other_network(t):
    t.network = dl.Network([dl.Dense(3, 1, seed=5)])
    t.optimizer = dl.SGD(t.network.parameters(), 0.1)


TRAINERS = {
    "optimizer": lambda t: setattr(t, "optimizer", dl.Adam(t.network.parameters(), 0.01)),
    "loss": lambda t: setattr(t, "loss", dl.mean_absolute_error),
    "loss to a lambda": lambda t: setattr(t, "loss", lambda y, target: ((y - target) ** 4).mean()),
    "metrics": lambda t: setattr(t, "metrics", {"mae": dl.mae}),
    "more metrics": lambda t: t.metrics.update(mae=dl.mae),
    "fewer metrics": lambda t: t.metrics.clear(),
    "learning_rate": lambda t: setattr(t.optimizer, "learning_rate", 0.01),
    "network": lambda t: other_network(t),
    "layer": lambda t: t.network.__setitem__(1, dl.ReLU()),
    "layer inserted": lambda t: t.network.insert(1, dl.Dropout(0.5, seed=1)),
    "frozen": lambda t: [setattr(x, "requires_grad", False) for x in t.network[0].parameters()],
    "l2": lambda t: setattr(t.optimizer, "l2", 0.3),
    "parameters": lambda t: (t.optimizer.parameters.pop(), t.optimizer.states.pop()),
}
for name, change in TRAINERS.items():
    CASES[f"Trainer: {name}"] = changed_trainer(change)


@case
def copied_trainer(world):
    t = trainer(world)
    fitted(world, t)
    twin = copy.deepcopy(t)
    fitted(world, twin)
    fitted(world, t)
    fitted(world, pickle.loads(pickle.dumps(t)))


@case
def trainer_with_a_failing_loss(world):
    state = types.SimpleNamespace(fails=True)

    def loss(y, target):
        if state.fails:
            raise Trouble
        return dl.mean_squared_error(y, target)

    t = trainer(world)
    t.loss = loss
    with contextlib.suppress(Trouble):
        fitted(world, t)
    state.fails = False
    fitted(world, t)


@case
def trainer_with_a_failing_metric(world):
    state = types.SimpleNamespace(fails=True)

    def metric(y, target):
        if state.fails:
            raise Trouble
        return dl.mean_absolute_error(y, target)

    network_before = trainer(world).network.state_dict()
    t = trainer(world, metrics=[metric])
    with contextlib.suppress(Trouble):
        fitted(world, t)
    state.fails = False
    world.note(
        [None if x.grad is None else "gradient" for x in t.network.parameters()]
        if world.options
        else [None] * 4
    )
    t.network.load_state_dict(network_before)
    for x in t.network.parameters():
        x.grad = None
    fitted(world, t)


@case
def weight_of_a_loss_raised_by_a_callback(world):
    settings = types.SimpleNamespace(weight=0.0)

    def loss(y, target):
        return dl.mean_squared_error(y, target) + settings.weight * (y * y).mean()

    def raised(fit):
        settings.weight += 0.5

    t = trainer(world)
    t.loss = loss
    fitted(world, t, callbacks=[raised])
