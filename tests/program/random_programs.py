"""Random functions of Tensors, to hold compiled programs against eager execution.

A function is drawn as a list of operations on a growing stock of values: views, broadcasts, shared
subexpressions, reductions, products, gradients of losses, in-place updates of state. It is then
ordinary Tensor code, run eagerly or compiled, in float64, so that a difference is an error and not
rounding.
"""

import types

import numpy
from hypothesis import strategies as st

import minidl as dl

SIZES = (1, 2, 3, 5)


@st.composite
def functions(draw, large=False):
    """Draw (function, make_state, input_shape): function(x, states) returns a tuple of Tensors."""
    rows = draw(st.sampled_from((40, 64) if large else SIZES))
    columns = draw(st.sampled_from((512, 700) if large else SIZES))
    count = draw(st.integers(1, 3))
    seeds = draw(st.integers(0, 2**20))
    actions = draw(st.lists(st.tuples(*[st.integers(0, 10**6)] * 4), min_size=1, max_size=14))

    def make_states():
        rng = numpy.random.default_rng(seeds)
        return [dl.Parameter(rng.uniform(0.2, 1, (rows, columns))) for _ in range(count)]

    def function(x, states):
        stock = [x, *states]
        for kind, i, j, k in actions:
            _extend(stock, kind, i, j, k)
        loss = sum(
            ((value * value).mean() for value in stock[-3:]), start=dl.zeros((), "float64", device=x.device)
        )
        results = [value.copy() for value in stock[-2:] if value.ndim]  # views would see the updates
        if loss.requires_grad:
            loss.backward()
        with dl.no_grad():
            for state in states:
                if state.grad is not None:
                    gradient, state.grad = state.grad, None
                    state.assign(0.9 * state + 0.1 * dl.tanh(gradient))
            if len(states) > 1 and actions[0][0] % 2:
                first, second = states[0].copy(), states[1].copy()
                states[0].assign(second)
                states[1].assign(first)
            again = [states[0].sum(axis=actions[0][1] % 2), dl.tanh(states[-1] @ states[-1].T)]
        return (loss, *results, *(value.copy() for value in again))

    return function, make_states, (rows, columns)


def _extend(stock, kind, i, j, k):
    """Add one value to the stock; every operation keeps values of moderate size."""
    a = stock[i % len(stock)]
    matrices = [value for value in stock if value.ndim == 2]
    m, n = matrices[i % len(matrices)], matrices[j % len(matrices)]
    choices = [
        lambda: dl.tanh(a),
        lambda: dl.relu(a),
        lambda: dl.sigmoid(a) * 2,
        lambda: a * 0.5 + 0.25,
        lambda: dl.exp(-abs(a)),
        lambda: dl.softplus(a) * 0.5,
        lambda: dl.clip(a, -0.5, 0.5),
        lambda: dl.where(a > 0.3, a, -a),
        lambda: a + m if a.shape == m.shape else a + a,
        lambda: a * m if a.shape == m.shape else a - 0.1,
        lambda: dl.maximum(a, m) if a.shape == m.shape else a.detach(),
        lambda: m.sum(axis=0) * (1 / len(m)),
        lambda: m.sum(axis=1, keepdims=True) * (1 / m.shape[1]),
        lambda: m + m.mean(axis=0),
        lambda: m - m.max(axis=1, keepdims=True),
        lambda: m.T,
        lambda: m.T.reshape(m.shape),
        lambda: (
            (m @ n.T).transpose(k % 2, 1 - k % 2) * 0.1 if m.shape[1] == n.shape[1] else dl.swapaxes(m, 0, 0)
        ),
        lambda: dl.tanh(m.reshape(*m.shape, 1)).reshape(m.shape),
        lambda: (m.reshape(len(m), 1, m.shape[1]) * 0.5 - n.reshape(-1)[0]).reshape(m.shape),
        lambda: m * m.reshape(1, *m.shape).sum() * (1 / m.size),
        lambda: m[: 1 + k % len(m)],
        lambda: m[:, ::-1],
        lambda: m[[k % len(m), 0]],
        lambda: (m @ n.T) * (1 / m.shape[1]) if m.shape[1] == n.shape[1] else m * 1.5,
        lambda: (m.T @ n) * (1 / len(m)) if len(m) == len(n) else m + 0.5,
        lambda: dl.tanh(m @ m.T @ m * (1 / m.size)) + dl.tanh(m @ (n.T @ n)) if m.shape == n.shape else m,
        lambda: dl.concatenate([m, m * 2], axis=k % 2),
        lambda: dl.softmax(m),
        lambda: dl.logsumexp(m, axis=1),
        lambda: dl.logsumexp(m * 2000, axis=k % 2) * (1 / 2000),
        lambda: m + ((m > 0.3) + (m < 0.1)) * 0.1,
        lambda: m * 0.5 + m[dl.argmax(m, axis=0)].sum(axis=0) * 0.01,
        lambda: (
            (m.reshape(len(m), 1, 1, -1) @ dl.tanh(n).reshape(1, len(n), -1, 1)).reshape(len(m), -1) * 0.1
            if m.shape[1] == n.shape[1]
            else m - n.mean()
        ),
        lambda: dl.ones_like(a) * a + dl.sin(dl.zeros_like(a)),
    ]
    result = choices[kind % len(choices)]()
    if result.size and result.size <= 50_000:
        stock.append(result)


# --- functions in surroundings that change --------------------------------------------------------


class Setting:
    """What a random function reads besides Tensors: numbers in every kind of place."""

    def __init__(self, draw_number):
        self.plain = types.SimpleNamespace(scale=draw_number())
        self.layer = dl.Network([])
        self.layer.scale = draw_number()
        self.numbers = [draw_number(), draw_number()]
        self.named = {"shift": draw_number()}
        self.array = numpy.array([draw_number()])
        self.generator = dl.Generator(int(100 * draw_number()))


@st.composite
def changing_functions(draw, assigned_views=True):
    """Draw (make, calls, input_shape): ``make`` returns (function, what it changes, changes) anew.

    Between the calls, ``changes`` are what Python code does: to settings, gradients, flags, states and
    aliases. ``calls`` lists, for each call, which of them come before it.
    """
    rows, columns = draw(st.sampled_from(SIZES)), draw(st.sampled_from(SIZES))
    actions = draw(st.lists(st.tuples(*[st.integers(0, 10**6)] * 4), min_size=1, max_size=8))
    seed = draw(st.integers(0, 2**20))
    habits = draw(st.lists(st.booleans(), min_size=8, max_size=8))
    habits[2] = habits[2] and habits[4] and habits[6] and assigned_views
    calls = draw(st.lists(st.lists(st.integers(0, 10**6), max_size=2), min_size=2, max_size=5))

    def make():
        rng = numpy.random.default_rng(seed)
        setting = Setting(lambda: round(float(rng.uniform(0.2, 1)), 3))
        states = [dl.Parameter(rng.uniform(0.2, 1, (rows, columns))) for _ in range(2)]
        aliases = [states[0].detach(), states[0].detach()[:1], states[1].detach().T]
        changes = _changes(setting, states, aliases, rng)
        return (
            _changing_function(actions, habits, setting, states, aliases),
            (states, aliases, setting),
            changes,
        )

    return make, calls, (rows, columns)


def _changing_function(actions, habits, setting, states, aliases):
    left, stepped, views, kept, noisy, outside, counts, reads = habits

    def function(x, factor):
        stock = [x * factor * setting.plain.scale, *states]
        for kind, i, j, k in actions:
            _extend(stock, kind, i, j, k)
        last = stock[-1] * setting.layer.scale + setting.numbers[0] * len(setting.numbers)
        loss = (last * last).mean() + setting.named["shift"] * (states[0] * setting.array[0]).sum()
        if noisy:
            loss = (
                loss
                + dl.random.uniform((1,), dtype="float64", generator=setting.generator).sum()
                * states[1].mean()
            )
        if loss.requires_grad:
            loss.backward()
        results = [loss, last * 1]
        if outside:
            results += [aliases[0] * 2, aliases[2] * 1]
        with dl.no_grad():
            if stepped:
                for state in states[: 1 + left]:
                    if state.grad is not None:
                        gradient = state.grad
                        state.grad = None
                        state.assign(0.9 * state + 0.1 * dl.tanh(gradient))
            if views:
                states[1][:1].assign(states[1][:1] * 0.5)
            if outside and reads and views:
                aliases[1].assign(aliases[1] * 0.5 + 0.1)
        results += [states[0] * 1, aliases[1] * 3] if outside else [states[0] * 1]
        if kept:
            setting.layer.kept = [states[1] * 2, loss.detach()]
        if counts:
            setting.layer.count = min(getattr(setting.layer, "count", 0) + 1, 2)
        return results

    return function


def _changes(setting, states, aliases, rng):
    number = lambda: round(float(rng.uniform(0.2, 1)), 3)
    new = lambda x: dl.tensor(rng.uniform(0.2, 1, x.shape))
    return [
        lambda: setattr(setting.plain, "scale", number()),
        lambda: setattr(setting.layer, "scale", number()),
        lambda: setting.numbers.append(number()),
        lambda: setting.numbers.__setitem__(0, number()),
        lambda: setting.named.update(shift=number()),
        lambda: setting.array.fill(number()),
        lambda: setattr(setting, "array", numpy.array([number()])),
        lambda: setattr(setting, "plain", types.SimpleNamespace(scale=number())),
        lambda: setattr(setting, "generator", dl.Generator(int(100 * number()))),
        lambda: setting.generator.load_state_dict(dl.Generator(int(100 * number())).state_dict()),
        lambda: setattr(states[0], "requires_grad", not states[0].requires_grad),
        lambda: setattr(states[1], "requires_grad", not states[1].requires_grad),
        lambda: setattr(states[0], "grad", None),
        lambda: setattr(states[0], "grad", new(states[0])),
        lambda: setattr(states[1], "grad", new(states[1])),
        lambda: setattr(states[1], "grad", states[0].grad),
        lambda: states[0].assign(new(states[0])),
        lambda: aliases[0].assign(new(aliases[0])),
        lambda: aliases[2].assign(new(aliases[2])),
        lambda: setattr(states[1], "data", rng.uniform(0.2, 1, states[1].shape)),
        lambda: setattr(setting.layer, "extra", number()),
        lambda: setattr(setting.layer, "count", 0),
        lambda: states.reverse(),
    ]
