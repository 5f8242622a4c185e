"""check_loss: right losses pass, and each mistake fails its row."""

import numpy
import pytest

import minidl as dl
from minidl.checks import check_loss
from tests.checks.mistakes import doubled_in_backward

RNG = numpy.random.default_rng(0)
X, T = RNG.normal(size=(4, 3)), RNG.normal(size=(4, 3))
CLASSES = numpy.array([0, 2, 1, 2])
P = RNG.uniform(0.1, 0.9, (4, 3))


@pytest.mark.parametrize(
    ("loss", "prediction", "target", "formula"),
    [
        (dl.mean_squared_error, X, T, lambda x, t: ((x - t) ** 2).mean()),
        (dl.mean_absolute_error, X, T, lambda x, t: abs(x - t).mean()),
        (dl.huber, X, T, None),
        (dl.softmax_cross_entropy, X, CLASSES, None),
        (dl.binary_cross_entropy_with_logits, X, P, None),
        (dl.binary_cross_entropy, P, P, None),
    ],
)
def test_minidls_own_pass(loss, prediction, target, formula):
    report = check_loss(loss, prediction, target, formula)
    assert report.passed, report


def failures(loss, prediction=X, target=T, formula=None):
    return [row.test for row in check_loss(loss, prediction, target, formula).failures]


def test_a_wrong_formula():
    assert failures(lambda x, t: ((x - t) ** 2).sum(), formula=lambda x, t: ((x - t) ** 2).mean()) == [
        "the loss follows the formula"
    ]


def test_a_wrong_gradient():
    double = doubled_in_backward()
    assert failures(lambda x, t: ((double(x) - t) ** 2).mean()) == ["gradients agree with differences"]


def test_one_loss_for_each_observation():
    assert "the loss is one finite number" in failures(lambda x, t: ((x - t) ** 2).mean(axis=1))


def test_a_fixed_batch_size():
    assert failures(lambda x, t: ((x - t) ** 2).sum() / len(x) ** 2) == [
        "twice the same observations give the mean or the sum"
    ]


def test_a_position_that_matters():
    assert "the order of observations does not matter" in failures(
        lambda x, t: ((x - t) ** 2 * dl.arange(len(x)).reshape(-1, 1)).mean()
    )


def test_a_naive_cross_entropy():
    def naive(x, t):
        p = dl.exp(x) / dl.exp(x).sum(axis=-1, keepdims=True)
        return -dl.log(p[numpy.arange(len(x)), t.numpy()]).mean()

    assert "float32 agrees with float64" in failures(naive, 2 * X, CLASSES)


def test_a_target_that_widens():
    assert "the dtype is the prediction's" in failures(lambda x, t: ((x - t.astype("float64")) ** 2).mean())


def test_a_prediction_that_is_overwritten():
    def overwriting(x, t):
        x.data -= t.data
        return (x**2).mean()

    assert "prediction and target are left alone" in failures(overwriting)
