"""Random functions of Tensors, to hold compiled programs against eager execution.

A function is drawn as a list of operations on a growing stock of values: views, broadcasts, shared
subexpressions, reductions, products, gradients of losses, in-place updates of state. It is then
ordinary Tensor code, run eagerly or compiled, in float64, so that a difference is an error and not
rounding.
"""

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
