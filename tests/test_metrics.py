import itertools

import numpy
import pytest
from hypothesis import given
from hypothesis import strategies as st

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


@pytest.mark.parametrize("metric", [dl.rmse, dl.mae, dl.accuracy, dl.mape, dl.r_squared])
def test_metrics_leave_no_tape(metric, rng):
    prediction = dl.Parameter(rng.normal(size=(5, 4)))
    assert not metric(prediction, rng.normal(size=(5, 4))).requires_grad


def test_metrics_run_on_a_device(strict_gpu, rng):
    prediction, target = rng.normal(size=(2, 5, 4))
    for metric in (dl.rmse, dl.mae, dl.accuracy):
        there = metric(dl.tensor(prediction, device="gpu"), dl.tensor(target, device="gpu"))
        assert there.device == "gpu:0"
        assert there.item() == metric(prediction, target).item()


# --- classification -----------------------------------------------------------------------------------------


def scores_for(classes, count):
    """Return scores whose largest is at the given classes."""
    return numpy.eye(count)[classes] + 0.1


def counted(predicted, actual, count):
    """Return precision, recall and F-score of each class, counted one by one; 0 / 0 is 0."""
    rows = []
    for k in range(count):
        both = sum(1 for p, a in zip(predicted, actual, strict=True) if p == a == k)
        said, there = list(predicted).count(k), list(actual).count(k)
        precision = both / said if said else 0.0
        recall = both / there if there else 0.0
        rows.append((precision, recall, 2 * both / (said + there) if said + there else 0.0))
    return numpy.array(rows)


@given(
    predicted=st.lists(st.integers(0, 3), min_size=1, max_size=12),
    data=st.data(),
)
def test_precision_recall_and_f_score_are_means_over_the_classes(predicted, data):
    actual = data.draw(st.lists(st.integers(0, 3), min_size=len(predicted), max_size=len(predicted)))
    expected = counted(predicted, actual, 4).mean(axis=0)
    scores = scores_for(predicted, 4)
    figures = [metric(scores, numpy.array(actual)).item() for metric in (dl.precision, dl.recall, dl.f_score)]
    numpy.testing.assert_allclose(figures, expected, rtol=1e-5, atol=1e-6)


def test_auc_is_the_share_of_pairs_in_the_right_order(rng):
    scores, truth = rng.integers(0, 5, 30) / 4, rng.integers(0, 2, 30)  # with ties
    pairs = [(p > n) + 0.5 * (p == n) for p in scores[truth == 1] for n in scores[truth == 0]]
    assert dl.auc(scores, truth).item() == pytest.approx(numpy.mean(pairs))
    assert dl.auc(scores.reshape(-1, 1), truth.reshape(-1, 1)).item() == pytest.approx(numpy.mean(pairs))
    assert dl.auc(numpy.array([0.1, 0.9]), numpy.array([0, 1])).item() == 1
    assert dl.auc(numpy.array([0.5, 0.5]), numpy.array([0, 1])).item() == 0.5


def test_auc_of_several_classes_is_the_mean_of_each_against_the_rest(rng):
    scores, classes = rng.random((20, 3)), rng.permutation(numpy.arange(20) % 3)
    each = [dl.auc(scores[:, k], (classes == k).astype(int)).item() for k in range(3)]
    assert dl.auc(scores, classes).item() == pytest.approx(numpy.mean(each))


def test_auc_refuses_what_it_is_not_defined_for():
    with pytest.raises(ValueError, match="auc needs positives and negatives; got 2 and 0"):
        dl.auc(numpy.array([0.1, 0.2]), numpy.array([1, 1]))
    with pytest.raises(ValueError, match=r"auc takes scores .* got \(3,\), \(2,\)"):
        dl.auc(numpy.zeros(3), numpy.zeros(2))


# --- regression -------------------------------------------------------------------------------------------


def test_mape_and_r_squared(rng):
    prediction, target = rng.normal(size=(2, 6, 4)) + 3
    assert dl.mape(prediction, target).item() == pytest.approx(
        100 * numpy.mean(numpy.abs(prediction - target) / numpy.abs(target))
    )
    residual, total = ((prediction - target) ** 2).sum(), ((target - target.mean()) ** 2).sum()
    assert dl.r_squared(prediction, target).item() == pytest.approx(1 - residual / total)
    assert dl.r_squared(target, target).item() == 1
    assert dl.r_squared(numpy.full_like(target, target.mean()), target).item() == pytest.approx(0, abs=1e-9)


def test_r_squared_of_float32_far_from_zero(rng):
    """Squares are summed in float64: in float32 the spread would drown in the mean."""
    target = (rng.normal(size=1000) + 1000).astype("float32")
    prediction = (target + 0.1 * rng.normal(size=1000)).astype("float32")
    exact = 1 - numpy.var(prediction.astype(float) - target) / numpy.var(target.astype(float))
    assert dl.r_squared(prediction, target).item() == pytest.approx(exact, abs=2e-3)


def test_targets_of_zero_do_not_divide_by_zero():
    assert numpy.isfinite(dl.mape(numpy.array([1.0]), numpy.array([0.0])).item())


@pytest.mark.parametrize("metric", [dl.mape, dl.r_squared])
def test_other_shapes_and_empty_batches_are_refused(metric):
    name = metric.__name__
    with pytest.raises(ValueError, match=rf"{name} takes .* of one shape, not empty; got \(3,\) and \(4,\)"):
        metric(numpy.zeros(3), numpy.zeros(4))
    with pytest.raises(ValueError, match=f"{name} takes"):
        metric(numpy.zeros(0), numpy.zeros(0))


# --- many mini-batches ------------------------------------------------------------------------------------

CLASSES = (dl.accuracy, dl.precision, dl.recall, dl.f_score)
NUMBERS = (dl.rmse, dl.mae, dl.mape, dl.r_squared)


@pytest.mark.parametrize("metric", [*CLASSES, *NUMBERS], ids=lambda metric: metric.__name__)
@given(cuts=st.lists(st.integers(1, 19), max_size=4, unique=True), seed=st.integers(0, 99))
def test_the_figure_of_all_follows_from_what_the_batches_contribute(metric, cuts, seed):
    rng = numpy.random.default_rng(seed)
    if metric in CLASSES:
        prediction, target = rng.random((20, 3)), rng.integers(0, 3, 20)
    else:
        prediction, target = rng.normal(size=(2, 20, 3)) + 2
    whole = metric(prediction, target).item()
    total = 0.0
    for start, end in itertools.pairwise([0, *sorted(cuts), 20]):
        observed = metric.observe(prediction[start:end], target[start:end])
        total = total + (end - start) / 20 * observed.numpy().astype(float)
    assert metric.finish(dl.tensor(numpy.asarray(total))).item() == pytest.approx(whole, rel=1e-5, abs=1e-6)


def test_metrics_have_names_directions_and_documentation():
    assert [metric.__name__ for metric in NUMBERS] == ["rmse", "mae", "mape", "r_squared"]
    assert [metric.larger_is_better for metric in NUMBERS] == [False, False, False, True]
    assert all(metric.larger_is_better for metric in (*CLASSES, dl.auc))
    assert repr(dl.rmse) == "metric rmse"
    assert "root of the mean squared" in dl.rmse.__doc__


def test_a_metric_of_ones_own():
    bias = dl.Metric(lambda prediction, target: (prediction - target).mean(), abs, name="bias")
    assert bias(dl.tensor([1.0, 2.0]), dl.tensor([3.0, 1.0])).item() == 0.5
    assert bias.__name__ == "bias"
