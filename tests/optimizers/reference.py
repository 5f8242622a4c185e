"""What the optimizer tests share: optimizers and plain NumPy loops, given the same gradients."""

import numpy

import minidl as dl

STEPS = 50
SHAPES = ((4, 3), (3,), (2, 2))
#: learning_rate_factor and l2_factor of each Parameter; None leaves the default
FACTORS = ((1.0, None), (2.0, None), (0.5, 3.0))

#: How the gradients are prepared: options of every optimizer.
OPTIONS = {
    "plain": {},
    "l2": {"l2": 0.1},
    "clip_value": {"clip_value": 0.5},
    "clip_norm": {"clip_norm": 1.0},
    "clip_global_norm": {"clip_global_norm": 2.0},
    "everything": {"l2": 0.05, "clip_value": 1.5, "clip_norm": 3.0, "clip_global_norm": 4.0},
}


def draw(seed=0):
    """Return float64 starting values, and for each step a gradient for each value."""
    rng = numpy.random.default_rng(seed)
    values = [rng.normal(size=shape) for shape in SHAPES]
    scales = rng.choice([0.01, 1, 10], size=STEPS)  # some are clipped, some are not
    return values, [[rng.normal(scale=scale, size=shape) for shape in SHAPES] for scale in scales]


def trained(optimizer_class, dtype="float64", **options):
    """Return the Parameters' values after every step of an optimizer."""
    values, gradients = draw()
    parameters = [
        dl.Parameter(value.astype(dtype), learning_rate_factor=factor, l2_factor=l2_factor)
        for value, (factor, l2_factor) in zip(values, FACTORS, strict=True)
    ]
    optimizer = optimizer_class(parameters, **options)
    history = []
    for step in gradients:
        for parameter, gradient in zip(parameters, step, strict=True):
            parameter.grad = dl.tensor(gradient, dtype)
        optimizer.step()
        history.append([parameter.numpy() for parameter in parameters])
    return history


def expected(rule, learning_rate, **options):
    """Return the values after every step of a NumPy rule: (value, gradient, rate, l2_factor, t, state)."""
    values, gradients = draw()
    states = [{} for _ in values]
    history = []
    for step, raw in enumerate(gradients):
        base = learning_rate(step) if callable(learning_rate) else learning_rate
        prepared = clipped(raw, **{name: x for name, x in options.items() if name != "l2"})
        updated = []
        for value, gradient, (factor, l2_factor), state in zip(
            values, prepared, FACTORS, states, strict=True
        ):
            if l2_factor is None:
                l2_factor = 1.0 if value.ndim >= 2 else 0.0
            gradient = gradient + options.get("l2", 0) * l2_factor * value
            updated.append(rule(value, gradient, base * factor, l2_factor, step + 1, state))
        values = updated
        history.append(values)
    return history


def clipped(gradients, clip_value=None, clip_norm=None, clip_global_norm=None):
    """Return gradients clipped by value, then each by its norm, then all by their common norm."""
    if clip_value is not None:
        gradients = [numpy.clip(g, -clip_value, clip_value) for g in gradients]
    if clip_norm is not None:
        gradients = [g * min(1, clip_norm / numpy.linalg.norm(g)) for g in gradients]
    if clip_global_norm is not None:
        norm = numpy.linalg.norm(numpy.concatenate([g.ravel() for g in gradients]))
        gradients = [g * min(1, clip_global_norm / norm) for g in gradients]
    return gradients


def assert_same(history, reference, tolerance=1e-10):
    """Compare the values after every step."""
    assert len(history) == len(reference) == STEPS
    for step, (values, others) in enumerate(zip(history, reference, strict=True)):
        for value, other in zip(values, others, strict=True):
            numpy.testing.assert_allclose(
                value, other, rtol=tolerance, atol=tolerance, err_msg=f"after step {step + 1}"
            )
