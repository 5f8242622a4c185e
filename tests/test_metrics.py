import numpy
import pytest

import minidl as dl


def test_rmse_and_mae(rng):
    prediction, target = rng.normal(size=(2, 5, 4, 3))
    difference = prediction - target
    assert dl.rmse(prediction, target).item() == pytest.approx(numpy.sqrt((difference**2).mean()))
    assert dl.mae(prediction, target).item() == pytest.approx(numpy.abs(difference).mean())


@pytest.mark.parametrize(("metric", "expected"), [(dl.rmse, numpy.sqrt(5000.5)), (dl.mae, 50.5)])
def test_bytes_do_not_wrap_around(metric, expected):
    one, other = numpy.array([0, 200], "uint8"), numpy.array([1, 100], "uint8")
    assert metric(one, other).item() == pytest.approx(expected)
    assert metric(other, one).item() == pytest.approx(expected)


@pytest.mark.parametrize("metric", [dl.rmse, dl.mae])
def test_a_perfect_prediction(metric, rng):
    x = rng.normal(size=(5, 4))
    assert metric(x, x).item() == 0


@pytest.mark.parametrize("metric", [dl.rmse, dl.mae])
def test_rmse_and_mae_refuse_what_the_losses_refuse(metric):
    with pytest.raises(ValueError, match=r"\.reshape\(4, 1\)"):
        metric(numpy.zeros((4, 1)), numpy.zeros(4))
    with pytest.raises(ValueError, match="the batch is empty"):
        metric(numpy.zeros((0, 3)), numpy.zeros((0, 3)))


def test_accuracy(rng):
    scores, classes = rng.normal(size=(50, 4)), rng.integers(0, 4, 50)
    expected = (scores.argmax(axis=1) == classes).mean()
    assert 0 < expected < 1
    for target in (classes, classes.astype("uint8"), classes.astype(float), numpy.eye(4)[classes]):
        result = dl.accuracy(scores, target)
        assert result.dtype == numpy.float32
        assert result.item() == pytest.approx(expected)


def test_accuracy_over_more_axes():
    scores = numpy.array([[[1, 0], [0, 1]], [[3, 2], [2, 3]]], float)
    assert dl.accuracy(scores, numpy.array([[0, 1], [1, 1]])).item() == 0.75


def test_equal_scores_count_for_the_first_class():
    assert dl.accuracy(numpy.ones((2, 3)), [0, 1]).item() == 0.5


@pytest.mark.parametrize(("scores", "target"), [((4, 3), (4, 1)), ((4, 3), (3,)), ((4,), (4,)), ((), ())])
def test_accuracy_refuses_other_shapes(scores, target):
    with pytest.raises(ValueError, match=r"accuracy takes scores \(batch, classes\)") as refusal:
        dl.accuracy(numpy.zeros(scores), numpy.zeros(target, int))
    assert f"got {scores} and {target}" in str(refusal.value)


def test_accuracy_refuses_an_empty_batch():
    with pytest.raises(ValueError, match="accuracy: the batch is empty"):
        dl.accuracy(numpy.zeros((0, 3)), numpy.zeros(0, int))


@pytest.mark.parametrize("metric", [dl.rmse, dl.mae, dl.accuracy])
def test_metrics_leave_no_tape(metric, rng):
    prediction = dl.Parameter(rng.normal(size=(5, 4)))
    assert not metric(prediction, rng.normal(size=(5, 4))).requires_grad


def test_metrics_run_on_a_device(strict_gpu, rng):
    prediction, target = rng.normal(size=(2, 5, 4))
    for metric in (dl.rmse, dl.mae, dl.accuracy):
        there = metric(dl.tensor(prediction, device="gpu"), dl.tensor(target, device="gpu"))
        assert there.device == "gpu:0"
        assert there.item() == metric(prediction, target).item()
