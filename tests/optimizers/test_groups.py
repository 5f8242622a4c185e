"""Parameter groups: the same as several optimizers, each with its own settings."""

import numpy
import pytest

import minidl as dl

KERNELS = pytest.mark.parametrize("kernels", [None, "numpy", "c"])
STEPS = 8


def three():
    rng = numpy.random.default_rng(0)
    return [dl.Parameter(rng.normal(size=(4, 3))) for _ in range(3)]


def train(parameters, optimizers, kernels=None, change=None):
    """Make some steps with a loss that couples all Parameters; return their values."""

    def step(x):
        loss = dl.mean_squared_error(dl.tanh(x @ parameters[0]) * (x @ parameters[1]), x @ parameters[2])
        loss.backward()
        for optimizer in optimizers:
            optimizer.step()
        return loss

    step = dl.compile(kernels=kernels)(step) if kernels else step
    rng = numpy.random.default_rng(1)
    for i in range(STEPS):
        if change is not None and i == STEPS // 2:
            change()
        step(dl.tensor(rng.normal(size=(5, 4))))
    return [parameter.numpy() for parameter in parameters]


def assert_same(ours, theirs):
    for one, other in zip(ours, theirs, strict=True):
        numpy.testing.assert_allclose(one, other, rtol=1e-12)


def separate(a, b, c):
    return [
        dl.AdamW([a], 0.05, weight_decay=0.5),
        dl.AdamW([b], 0.01, weight_decay=0.0, l2=0.3),
        dl.AdamW([c], 0.01, weight_decay=0.5),
    ]


def grouped(a, b, c):
    return dl.AdamW(
        [
            {"parameters": [a], "learning_rate": 0.05},
            {"parameters": b, "weight_decay": 0, "l2": numpy.float64(0.3)},
            c,
        ],
        0.01,
        weight_decay=0.5,
    )


@KERNELS
def test_groups_are_as_several_optimizers(kernels):
    ours, theirs = three(), three()
    assert_same(train(ours, [grouped(*ours)], kernels), train(theirs, separate(*theirs)))


@KERNELS
def test_settings_of_a_group_can_be_changed_on_the_way(kernels):
    ours, theirs = three(), three()
    optimizer, others = grouped(*ours), separate(*theirs)

    def change_ours():
        optimizer.groups[1].learning_rate_factor = 0.1
        optimizer.groups[2].l2 = None
        optimizer.groups[1].weight_decay = 0.25

    def change_theirs():
        others[0].learning_rate = 0.001
        others[1].l2 = 0.0
        others[0].weight_decay = 0.25

    assert_same(train(ours, [optimizer], kernels, change_ours), train(theirs, others, change=change_theirs))


@KERNELS
def test_a_schedule_is_multiplied_by_each_groups_factor(kernels):
    ours, theirs = three(), three()
    schedule = dl.schedules.Cosine(0.02, STEPS)
    double = dl.schedules.Cosine(0.04, STEPS)
    groups = [{"parameters": ours[:1], "learning_rate_factor": 2}, {"parameters": ours[1:]}]
    optimizers = [dl.SGD(theirs[:1], double), dl.SGD(theirs[1:], schedule)]
    assert_same(train(ours, [dl.SGD(groups, schedule)], kernels), train(theirs, optimizers))


def test_a_new_learning_rate_moves_all_groups():
    one, two = dl.Parameter([0.0]), dl.Parameter([0.0])
    optimizer = dl.SGD([{"parameters": [one], "learning_rate": 0.4}, two], 0.1, momentum=0)
    optimizer.learning_rate = 0.01
    one.grad, two.grad = dl.ones(1), dl.ones(1)
    optimizer.step()
    assert (one.item(), two.item()) == pytest.approx((-0.04, -0.01))


def test_limits_are_common_to_all_groups():
    one, two = dl.Parameter([0.0]), dl.Parameter([0.0])
    optimizer = dl.SGD([{"parameters": [one]}, {"parameters": [two]}], 1.0, momentum=0, clip_global_norm=1.0)
    one.grad, two.grad = dl.tensor([3.0]), dl.tensor([4.0])
    optimizer.step()
    assert (one.item(), two.item()) == pytest.approx((-0.6, -0.8))


def test_the_history_notes_them():
    a, b, c = three()
    groups = dl.AdamW([{"parameters": [a, b], "l2": 0.5}, c], 0.01).settings()["groups"]
    assert groups == [{"learning_rate_factor": 1.0}, {"learning_rate_factor": 1.0, "l2": 0.5}]
    assert "groups" not in dl.AdamW([a, b, c]).settings()


P = dl.Parameter([1.0])


@pytest.mark.parametrize(
    ("groups", "error", "message"),
    [
        ([{"params": [P]}], TypeError, "group 0 has no setting 'params': it is called 'parameters' here"),
        ([{"parameters": [P], "lr": 1}], TypeError, "'lr': it is called 'learning_rate' here"),
        ([{"parameters": [P], "momentum": 0.5}], TypeError, "those of all groups: for others, use two"),
        ([{"learning_rate": 1}], TypeError, "group 0 has no 'parameters'"),
        ([P, {"parameters": [P]}], ValueError, r"a Parameter of shape \(1,\) is in two groups"),
        ([{"parameters": [P], "l2": -1}], ValueError, "l2 must be finite and not negative, got -1"),
        ([{"parameters": [P], "learning_rate": float("nan")}], ValueError, "learning_rate.* got nan"),
        (
            [{"parameters": [P], "learning_rate": 1, "learning_rate_factor": 1}],
            TypeError,
            "both a learning_rate and a learning_rate_factor",
        ),
        (
            [{"parameters": [P], "learning_rate": dl.schedules.Constant(1)}],
            TypeError,
            "give the group a learning_rate_factor",
        ),
        ([{"parameters": []}], ValueError, "got no parameters to train"),
        ([{"parameters": [dl.zeros(2)]}], TypeError, "trains Parameters, got Tensor"),
    ],
)
def test_what_is_no_group_is_refused(groups, error, message):
    with pytest.raises(error, match=message):
        dl.SGD(groups, 0.1)


def test_a_multiple_of_0_is_refused():
    with pytest.raises(ValueError, match="is a multiple of the optimizer's, which is 0"):
        dl.SGD([{"parameters": [P], "learning_rate": 1}], 0)


def test_a_group_has_no_other_settings():
    group = dl.AdamW([P]).groups[0]
    with pytest.raises(AttributeError, match="no setting 'learning_rate'; it has learning_rate_factor, l2"):
        group.learning_rate = 0.1
    with pytest.raises(ValueError, match="weight_decay must be finite and not negative, got -1"):
        group.weight_decay = -1
    group.l2 = numpy.float32(0.5)
    assert repr(group) == "ParameterGroup(1 parameters, learning_rate_factor=1.0, l2=0.5)"


def test_groups_stand_in_a_list_and_are_for_optimizers_of_mini_batches():
    with pytest.raises(TypeError, match="SGD takes a list of groups, got one"):
        dl.SGD({"parameters": [P]}, 0.1)
    with pytest.raises(TypeError, match="LBFGS trains Parameters, and has no groups of them, got dict"):
        dl.LBFGS([{"parameters": [P]}])
