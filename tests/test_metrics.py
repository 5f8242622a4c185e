import numpy
import pytest
from hypothesis import given
from hypothesis import strategies as st

import minidl as dl
from minidl.errors import RecordingError


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


BY_CLASS = [dl.accuracy, dl.precision, dl.recall, dl.f_score]


@pytest.mark.parametrize("metric", BY_CLASS)
@pytest.mark.parametrize("shape", [(40, 1), (40,)])
@pytest.mark.parametrize("dtype", ["int64", "float32", "bool"])
def test_one_probability_stands_for_two_classes(metric, shape, dtype, rng):
    p, target = rng.uniform(size=(40, 1)), rng.integers(0, 2, shape)
    expected = metric(numpy.concatenate([1 - p, p], axis=1), target.reshape(40)).item()
    assert 0 < expected < 1
    assert metric(p, target.astype(dtype)).item() == pytest.approx(expected)
    logits = numpy.log(p / (1 - p))
    assert metric(logits, target.astype(dtype), threshold=0).item() == pytest.approx(expected)


@pytest.mark.parametrize("metric", BY_CLASS)
@pytest.mark.parametrize("compiled", [False, True])
def test_one_column_of_logits_asks_for_its_threshold(metric, compiled):
    function = dl.compile(metric) if compiled else metric
    function(numpy.full((4, 1), 0.5), numpy.ones((4, 1)))
    with pytest.raises(
        ValueError, match=rf"values from -1\.0 to 2\.0; .* {metric.__name__}\.of\(threshold=0\)"
    ):
        function(numpy.array([[-1.0], [2], [0], [1]]), numpy.ones((4, 1)))
    with pytest.raises(ValueError, match=r"targets of two classes must be in \[0, 1\]"):
        function(numpy.full((4, 1), 0.5), numpy.full((4, 1), 2.0))


# --- the k best, perplexity, confusion ------------------------------------------------------------


@pytest.mark.parametrize("k", [1, 2, 5, numpy.int64(3)])
def test_top_k_accuracy(k, rng):
    scores, actual = rng.integers(0, 3, size=(60, 5)).astype(float), rng.integers(0, 5, 60)  # with ties
    best = numpy.argsort(-scores, axis=1, kind="stable")[:, :k]
    expected = numpy.mean([right in row for right, row in zip(actual, best, strict=True)])
    assert dl.top_k_accuracy(scores, actual, k=k).item() == pytest.approx(expected)
    assert dl.top_k_accuracy.of(k=k)(scores, actual).item() == pytest.approx(expected)
    if k == 1:
        assert dl.accuracy(scores, actual).item() == pytest.approx(expected)


@pytest.mark.parametrize("k", [0, 4])
def test_top_k_accuracy_refuses_another_k(k):
    with pytest.raises(ValueError, match=f"k must be from 1 to the number of classes, 3; got {k}"):
        dl.top_k_accuracy(numpy.zeros((2, 3)), [0, 1], k=k)


def test_perplexity(rng):
    z, t = rng.normal(size=(4, 6, 5)), rng.integers(0, 5, (4, 6))
    assert dl.perplexity(z, t).item() == pytest.approx(numpy.exp(dl.softmax_cross_entropy(z, t).item()))
    assert dl.perplexity(numpy.zeros((3, 7)), [0, 1, 2]).item() == pytest.approx(7)


def test_confusion_matrix(rng):
    scores, actual = rng.normal(size=(50, 4)), rng.integers(0, 4, 50)
    weight = rng.integers(0, 3, 50)
    expected, weighted = numpy.zeros((2, 4, 4))
    for row, right, w in zip(scores, actual, weight, strict=True):
        expected[right, row.argmax()] += 1
        weighted[right, row.argmax()] += w
    numpy.testing.assert_array_equal(dl.confusion_matrix(scores, actual).numpy(), expected)
    numpy.testing.assert_array_equal(dl.confusion_matrix(scores, numpy.eye(4)[actual]).numpy(), expected)
    numpy.testing.assert_array_equal(dl.confusion_matrix(scores, actual, weight).numpy(), weighted)
    assert dl.confusion_matrix([[0.2], [0.7]], [0, 0]).tolist() == [[1, 1], [0, 0]]
    with pytest.raises(ValueError, match=r"class numbers must be in \[0, 3\]"):
        dl.confusion_matrix(scores, actual + 1)


# --- weights --------------------------------------------------------------------------------------


def drawn(metric, rng, count=40):
    """Return predictions and targets that a metric takes."""
    prediction, target = rng.normal(size=(2, count, 6)).astype("float32")
    return prediction, target.argmax(axis=1) if metric in OF_CLASSES else target


@pytest.mark.parametrize("kernels", [None, "numpy", "c"])
@pytest.mark.parametrize(
    "name",
    [
        "rmse",
        "mae",
        "mape",
        "r_squared",
        "accuracy",
        "top_k_accuracy",
        "perplexity",
        "precision",
        "recall",
        "f_score",
    ],
)
def test_a_weight_is_how_often_an_observation_is_there(name, kernels, rng):
    metric = getattr(dl, name)
    prediction, target = drawn(metric, rng)
    weight = rng.integers(0, 4, len(target))
    expected = metric(numpy.repeat(prediction, weight, axis=0), numpy.repeat(target, weight, axis=0)).item()
    function = lambda p, t, w: metric(p, t, weight=w)
    function = dl.compile(kernels=kernels)(function) if kernels else function
    prediction[weight == 0] = numpy.nan if metric not in OF_CLASSES else 0  # which does not count
    assert function(prediction, target, weight).item() == pytest.approx(expected, rel=1e-4)
    assert expected != pytest.approx(metric(prediction, target).item(), rel=1e-3)


@pytest.mark.parametrize("metric", [dl.accuracy, dl.top_k_accuracy, dl.perplexity])
def test_a_class_can_be_left_out(metric, rng):
    prediction, target = rng.normal(size=(8, 10, 6)), rng.integers(-1, 6, (8, 10))
    kept = target != -1
    expected = metric(prediction[kept], target[kept]).item()
    assert metric(prediction, target, ignore_index=-1).item() == pytest.approx(expected, rel=1e-6)
    ours = metric.of(ignore_index=-1)
    assert merged(ours, [(prediction[:3], target[:3]), (prediction[3:], target[3:])]) == pytest.approx(
        expected, rel=1e-6
    )


def test_no_weight_at_all_is_0():
    assert dl.accuracy(numpy.eye(3), [0, 1, 2], weight=[0, 0, 0]).item() == 0


@pytest.mark.parametrize("metric", [dl.rmse, dl.accuracy, dl.precision])
def test_bad_weights_are_refused(metric, rng):
    prediction, target = drawn(metric, rng, 4)
    with pytest.raises(ValueError, match=r"weight must have the shape .* got \(3,\)"):
        metric(prediction, target, weight=[1, 1, 1])
    with pytest.raises(ValueError, match=r"weights must be in \[0, .* got values from -1"):
        metric(prediction, target, weight=[1, 1, 1, -1])


# --- which output ---------------------------------------------------------------------------------


def test_a_metric_of_one_output_of_several():
    first, second, right, value = (
        numpy.eye(3),
        numpy.ones((3, 2)),
        numpy.array([0, 1, 0]),
        numpy.zeros((3, 2)),
    )
    classes, error = dl.accuracy.of(0, -2, name="classes"), dl.rmse.of(1)
    assert classes.finish(classes.observe(first, second, right, value)).item() == pytest.approx(2 / 3)
    assert error.finish(error.observe(first, second, right, value)).item() == 1
    assert (classes.__name__, error.__name__) == ("classes", "rmse(output=1, target=-1)")
    assert classes.larger_is_better
    assert not error.larger_is_better


def test_a_trainer_takes_metrics_of_two_outputs(rng):
    class TwoHeads(dl.Layer):
        def __init__(self):
            self.one, self.two = dl.Dense(4, 3, seed=0), dl.Dense(4, 1, seed=1)

        def forward(self, x):
            return self.one(x), self.two(x)

    def loss(scores, value, actual, target):
        return dl.softmax_cross_entropy(scores, actual) + dl.mean_squared_error(value, target)

    x, actual = rng.normal(size=(50, 4)).astype("float32"), rng.integers(0, 3, 50)
    target = x[:, :1] * 2
    metrics = [dl.accuracy.of(0, -2, name="accuracy"), dl.rmse.of(1, name="rmse")]
    trainer = dl.Trainer(TwoHeads(), loss, metrics=metrics, device="cpu", seed=0)
    trainer.fit(
        x, (actual, target), epochs=2, batch_size=16, validation_data=(x, (actual, target)), verbose=False
    )
    scores, values = trainer.predict(x)
    figures = trainer.evaluate(x, (actual, target))
    assert figures["accuracy"] == pytest.approx((scores.argmax(axis=1) == actual).mean(), rel=1e-5)
    assert figures["rmse"] == pytest.approx(numpy.sqrt(((values - target) ** 2).mean()), rel=1e-5)


def test_unknown_options_are_refused():
    with pytest.raises(
        TypeError, match=r"accuracy takes the options weight, threshold, ignore_index; got \['k'\]"
    ):
        dl.accuracy.of(k=3)


# --- classes --------------------------------------------------------------------------------------


def counted(scores, actual):
    """Return for each class: true positives, false positives, false negatives; one by one."""
    table = numpy.zeros((scores.shape[1], 3))
    for row, right in zip(scores, actual, strict=True):
        guess = max(range(len(row)), key=lambda i: row[i])
        if guess == right:
            table[right, 0] += 1
        else:
            table[guess, 1] += 1
            table[right, 2] += 1
    return table


def share(part, whole):
    return part / whole if whole else 0.0


REFERENCES = {
    dl.precision: lambda tp, fp, fn: share(tp, tp + fp),
    dl.recall: lambda tp, fp, fn: share(tp, tp + fn),
    dl.f_score: lambda tp, fp, fn: share(tp, tp + (fp + fn) / 2),
}
per_class = pytest.mark.parametrize("metric", REFERENCES, ids=lambda metric: metric.__name__)


@per_class
@pytest.mark.parametrize("absent", [None, "never predicted", "never there"])
def test_precision_recall_and_f_score(metric, absent, rng):
    scores, actual = rng.normal(size=(60, 4)), rng.integers(0, 4, 60)
    if absent == "never predicted":
        scores[:, 2] = -10
    if absent == "never there":
        actual[actual == 2] = 0
    expected = numpy.mean([REFERENCES[metric](*row) for row in counted(scores, actual)])
    assert 0 < expected < 1
    for target in (actual, actual.astype("uint8"), numpy.eye(4)[actual]):
        assert metric(scores, target).item() == pytest.approx(expected, rel=1e-6)


@per_class
def test_perfect_and_hopeless_predictions(metric):
    assert metric(numpy.eye(3), [0, 1, 2]).item() == 1
    assert metric(numpy.eye(3), [1, 2, 0]).item() == 0


def test_precision_and_recall_are_not_mixed_up():
    scores, actual = numpy.eye(2)[[0, 0, 0, 1]], [0, 1, 1, 1]  # class 0 is said too often
    assert dl.precision(scores, actual).item() == pytest.approx((1 / 3 + 1) / 2)
    assert dl.recall(scores, actual).item() == pytest.approx((1 + 1 / 3) / 2)
    assert dl.f_score(scores, actual).item() == pytest.approx(1 / 2)  # 2/4 for either class


@per_class
def test_refused_shapes_name_the_metric(metric):
    with pytest.raises(ValueError, match=rf"{metric.__name__} takes scores \(batch, classes\)"):
        metric(numpy.zeros((4, 3)), numpy.zeros(3))


# --- numbers --------------------------------------------------------------------------------------


def test_mape(rng):
    target = rng.uniform(1, 2, size=(6, 3)) * rng.choice([-1, 1], size=(6, 3))
    prediction = target + rng.normal(size=(6, 3))
    expected = 100 * numpy.mean(numpy.abs((target - prediction) / target))
    assert dl.mape(prediction, target).item() == pytest.approx(expected)
    assert dl.mape([110.0, 90.0], [100.0, 100.0]).item() == pytest.approx(10)


def test_mape_of_a_target_of_zero_is_large_and_finite():
    error = dl.mape(numpy.float32([0.5]), numpy.float32([0])).item()
    assert 1e6 < error < numpy.inf
    assert dl.mape(numpy.float32([0]), numpy.float32([0])).item() == 0


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_r_squared(dtype, rng):
    target = (3 + rng.normal(size=(50, 2))).astype(dtype)
    prediction = (target + 0.5 * rng.normal(size=(50, 2))).astype(dtype)
    residual = ((target - prediction) ** 2).sum(dtype="float64")
    total = ((target - target.mean(dtype="float64")) ** 2).sum(dtype="float64")
    assert dl.r_squared(prediction, target).item() == pytest.approx(1 - residual / total, rel=1e-5)


def test_r_squared_of_perfect_mean_and_worse_predictions(rng):
    target = rng.normal(size=20)
    assert dl.r_squared(target, target).item() == 1
    assert dl.r_squared(numpy.full(20, target.mean()), target).item() == pytest.approx(0, abs=1e-12)
    assert dl.r_squared(-target, target).item() < 0


def test_r_squared_where_the_mean_is_large_beside_the_spread(rng):
    target = numpy.float32(1e4 + rng.normal(size=1000))
    prediction = target + numpy.float32(0.5)
    expected = 1 - 0.25 / target.var(dtype="float64")
    assert dl.r_squared(prediction, target).item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("metric", [dl.mape, dl.r_squared])
def test_mape_and_r_squared_refuse_other_shapes(metric):
    for shapes in (((4, 1), (4,)), ((0,), (0,))):
        with pytest.raises(ValueError, match="of one shape, not empty"):
            metric(*map(numpy.zeros, shapes))


# --- the area under the ROC curve -----------------------------------------------------------------


def pairs_won(scores, positive):
    """Return the share of pairs in which the positive one scores above the negative one, one by one."""
    pairs = [(p, n) for p in scores[positive] for n in scores[~positive]]
    return numpy.mean([1.0 if p > n else 0.5 if p == n else 0.0 for p, n in pairs])


@pytest.mark.parametrize("ties", [False, True])
def test_auc(ties, rng):
    positive = rng.random(40) < 0.4
    scores = rng.normal(size=40) + positive
    if ties:
        scores = scores.round()
    expected = pairs_won(scores, positive)
    assert 0.5 < expected < 1
    for target in (positive, positive.astype(int), positive.astype("float32")):
        assert dl.auc(scores, target).item() == pytest.approx(expected)
    assert dl.auc(scores[:, None], positive[:, None]).item() == pytest.approx(expected)
    assert dl.auc(-scores, positive).item() == pytest.approx(1 - expected)
    assert dl.auc(numpy.zeros(40), positive).item() == 0.5


def test_auc_of_several_classes_is_that_of_each_against_the_rest(rng):
    actual = rng.integers(0, 3, 50)
    scores = rng.normal(size=(50, 3)) + numpy.eye(3)[actual]
    expected = numpy.mean([pairs_won(scores[:, i], actual == i) for i in range(3)])
    assert dl.auc(scores, actual).item() == pytest.approx(expected)
    assert dl.auc(scores, numpy.eye(3)[actual]).item() == pytest.approx(expected)


def test_auc_refuses_what_it_is_not_defined_for():
    with pytest.raises(ValueError, match="positives and negatives; got 3 and 0"):
        dl.auc([0.1, 0.2, 0.3], [1, 1, 1])
    with pytest.raises(ValueError, match=r"got \(4, 2\), \(4, 3\)"):
        dl.auc(numpy.zeros((4, 2)), numpy.zeros((4, 3)))


def test_auc_refuses_to_be_recorded(rng):
    """It sorts on the host, which a replay would not repeat."""
    with pytest.raises(RecordingError, match="reads the value of a Tensor"):
        dl.compile(dl.auc)(rng.normal(size=10), numpy.arange(10) % 2)


# --- many mini-batches ----------------------------------------------------------------------------

OF_CLASSES = (dl.accuracy, dl.top_k_accuracy, dl.perplexity, dl.precision, dl.recall, dl.f_score)
METRICS = [metric for metric in vars(dl).values() if isinstance(metric, dl.Metric)]


def merged(metric, batches):
    """Return the figure of many batches, as the description of Metric says."""
    sizes = [len(target) for _, target in batches]
    observed = [metric.observe(*batch).numpy().astype("float64") for batch in batches]
    return metric.finish(dl.tensor(numpy.average(observed, axis=0, weights=sizes))).item()


@pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric.__name__)
@given(st.lists(st.integers(1, 12), min_size=1, max_size=5))
def test_merged_mini_batches_equal_the_whole(metric, sizes):
    rng = numpy.random.default_rng(sum(sizes))
    total = sum(sizes) + 2
    prediction, target = rng.normal(size=(2, total, 6)).astype("float32")
    if metric in OF_CLASSES:
        target = target.argmax(axis=1)
    ends = numpy.cumsum(sizes)
    batches = list(zip(numpy.split(prediction, ends), numpy.split(target, ends), strict=True))
    assert merged(metric, batches) == pytest.approx(metric(prediction, target).item(), rel=1e-4, abs=1e-6)


def test_the_merged_metrics_are_all_of_them():
    names, smaller = {metric.__name__ for metric in METRICS}, {"rmse", "mae", "mape", "perplexity"}
    assert names == smaller | {
        "r_squared",
        "accuracy",
        "top_k_accuracy",
        "precision",
        "recall",
        "f_score",
    }
    assert {metric.__name__ for metric in METRICS if metric.larger_is_better} == names - smaller


@pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric.__name__)
def test_compiled_metrics_give_the_same(metric, rng):
    prediction, target = rng.normal(size=(2, 20, 6)).astype("float32")
    if metric in OF_CLASSES:
        target = target.argmax(axis=1)
    compiled = dl.compile(metric)
    for _ in range(2):
        assert compiled(prediction, target).item() == pytest.approx(
            metric(prediction, target).item(), rel=1e-5
        )


def test_a_metric_of_ones_own():
    def log_ratio(prediction, target):
        """Return the mean squared logarithm of the ratio."""
        return (dl.log(dl.tensor(prediction) / target) ** 2).mean()

    metric = dl.Metric(log_ratio, dl.sqrt)
    assert metric.__name__ == "log_ratio"
    assert metric.__doc__ == log_ratio.__doc__
    assert repr(metric) == "metric log_ratio"
    assert metric([numpy.e, 1.0], [1.0, numpy.e]).item() == pytest.approx(1)
    assert merged(metric, [([numpy.e], [1.0]), ([1.0], [1.0])]) == pytest.approx(numpy.sqrt(0.5))
    assert dl.Metric(log_ratio, name="other").__name__ == "other"


@pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric.__name__)
def test_metrics_leave_no_tape(metric, rng):
    prediction, target = drawn(metric, rng)
    assert not metric(dl.Parameter(prediction), target).requires_grad


def test_metrics_run_on_a_device(strict_gpu, rng):
    for metric in METRICS:
        prediction, target = drawn(metric, rng)
        there = metric(dl.tensor(prediction, device="gpu"), dl.tensor(target, device="gpu"))
        assert there.device == "gpu:0"
        assert there.item() == metric(prediction, target).item()
