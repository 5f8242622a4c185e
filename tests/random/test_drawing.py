"""Drawing random numbers: what their distribution is, and that replays draw anew."""

import numpy
import pytest
import scipy.stats

import minidl as dl

DRAWS = {
    "uniform": (lambda **k: dl.random.uniform((50, 100), -1, 3, **k), scipy.stats.uniform(-1, 4)),
    "normal": (lambda **k: dl.random.normal((50, 100), 2.0, 0.5, **k), scipy.stats.norm(2, 0.5)),
    "truncated_normal": (
        lambda **k: dl.random.truncated_normal((50, 100), 1.0, 2.0, -1.0, 0.5, **k),
        scipy.stats.truncnorm(-1, 0.5, 1, 2),
    ),
}
WHOLE = {
    "integers": lambda **k: dl.random.integers(2, 5, (4000,), **k),
    "bernoulli": lambda **k: dl.random.bernoulli(0.3, (4000,), **k),
    "permutation": lambda **k: dl.random.permutation(100, **k),
}
every_draw = pytest.mark.parametrize("draw", {n: d for n, (d, _) in DRAWS.items()} | WHOLE)


def function_of(name):
    return WHOLE[name] if name in WHOLE else DRAWS[name][0]


@pytest.mark.parametrize("name", DRAWS)
def test_distributions(name):
    draw, distribution = DRAWS[name]
    x = draw(generator=dl.Generator(0))
    assert (x.shape, x.dtype) == ((50, 100), numpy.float32)
    assert scipy.stats.kstest(x.numpy().ravel(), distribution.cdf).pvalue > 0.01
    assert draw(dtype="float64").dtype == numpy.float64


def test_whole_numbers():
    x = dl.random.integers(2, 5, (4000,), generator=dl.Generator(0))
    assert x.dtype == numpy.int64
    values, counts = numpy.unique(x.numpy(), return_counts=True)
    assert values.tolist() == [2, 3, 4]
    assert scipy.stats.chisquare(counts).pvalue > 0.01
    assert set(dl.random.integers(3, shape=(100,)).numpy()) == {0, 1, 2}


def test_bernoulli_takes_a_probability_for_each_element():
    p = dl.tensor(numpy.repeat([[0.0, 0.3, 1.0]], 4000, axis=0))
    means = dl.random.bernoulli(p, generator=dl.Generator(0)).numpy().mean(axis=0)
    assert (means[0], means[2]) == (0, 1)
    assert means[1] == pytest.approx(0.3, abs=0.03)
    assert dl.random.bernoulli(1).numpy()


def test_permutations():
    order = dl.random.permutation(100, generator=dl.Generator(0)).numpy()
    assert sorted(order) == list(range(100))
    assert order.tolist() != list(range(100))
    x = dl.tensor([[1.0, 1.0], [2.0, 2.0], [3.0, 3.0]])
    rows = dl.random.permutation(x, generator=dl.Generator(1)).numpy()
    assert sorted(rows.tolist()) == x.tolist()


@every_draw
def test_a_seed_decides_what_is_drawn(draw):
    draw = function_of(draw)
    dl.random.seed(7)
    first, second = draw().numpy(), draw().numpy()
    assert (first != second).any()
    dl.random.seed(7)
    numpy.testing.assert_array_equal(draw().numpy(), first)
    numpy.testing.assert_array_equal(draw(generator=dl.Generator(7)).numpy(), first)


@every_draw
def test_replays_draw_anew(draw):
    draw = function_of(draw)
    compiled = dl.compile(lambda: draw())
    dl.random.seed(3)
    replayed = [compiled().numpy() for _ in range(3)]
    dl.random.seed(3)
    for x in replayed:
        numpy.testing.assert_array_equal(x, draw().numpy())


def test_the_seed_reaches_layers_made_without_one():
    weights = []
    for _ in range(2):
        dl.random.seed(1)
        layer = dl.Dense(4, 3)
        weights.append(layer.weight.numpy())
    numpy.testing.assert_array_equal(*weights)
    assert (dl.Dense(4, 3).weight.numpy() != weights[0]).any()


def test_draws_are_made_on_the_device_asked_for(gpu_name):
    for draw in (dl.random.uniform, dl.random.normal):
        assert draw((3,), device=gpu_name).device == gpu_name
    assert dl.random.permutation(4, device=gpu_name).device == gpu_name


@pytest.mark.parametrize(
    ("action", "error", "message"),
    [
        (lambda: dl.random.normal(3, dtype="float16"), TypeError, "drawn as float32 or float64"),
        (lambda: dl.random.uniform(3, dtype="int64"), TypeError, "drawn as float32 or float64"),
        (lambda: dl.random.integers(3, 3), ValueError, "needs low < high"),
        (lambda: dl.random.truncated_normal(3, low=2, high=1), ValueError, "needs low < high"),
    ],
)
def test_bad_input_is_refused(action, error, message):
    with pytest.raises(error, match=message):
        action()
