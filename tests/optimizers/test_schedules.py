import math

import numpy
import pytest
from hypothesis import given
from hypothesis import strategies as st

import minidl as dl
from minidl.optimizers.schedules import (
    Constant,
    Cosine,
    Cyclical,
    Exponential,
    Polynomial,
    Schedule,
    Sequence,
    Step,
    Warmup,
)


def cosine(high, low, progress):
    return low + (high - low) * (1 + math.cos(math.pi * progress)) / 2


# Every schedule beside its formula for a step, counted from 0.
FORMULAS = [
    (Constant(0.3), lambda step: 0.3),
    (Step(0.1, period=10), lambda step: 0.1 * 0.1 ** (step // 10)),
    (Step(0.2, period=3, factor=0.5), lambda step: 0.2 * 0.5 ** (step // 3)),
    (Exponential(0.1, 0.9), lambda step: 0.1 * 0.9**step),
    (Cosine(0.1, steps=20), lambda step: cosine(0.1, 0, min(step / 20, 1))),
    (Cosine(0.1, steps=20, final=0.01), lambda step: cosine(0.1, 0.01, min(step / 20, 1))),
    (Cosine(0.1, steps=8, final=0.01, restart=True), lambda step: cosine(0.1, 0.01, step % 8 / 8)),
    (Polynomial(0.1, steps=20), lambda step: 0.1 * max(1 - step / 20, 0)),
    (Polynomial(0.1, 20, final=0.02, power=2), lambda step: 0.02 + 0.08 * max(1 - step / 20, 0) ** 2),
    (Cyclical(0.01, 0.1, period=10), lambda step: 0.01 + 0.09 * (1 - abs(2 * (step % 10) / 10 - 1))),
    (Warmup(0.1, steps=5), lambda step: 0.1 * min((step + 1) / 5, 1)),
]
every_schedule = pytest.mark.parametrize(("schedule", "formula"), FORMULAS, ids=[str(s) for s, _ in FORMULAS])


@every_schedule
def test_follows_its_formula(schedule, formula):
    numpy.testing.assert_allclose(
        schedule.values(45), [formula(i) for i in range(45)], rtol=1e-12, atol=1e-17
    )


@every_schedule
def test_an_optimizer_follows_it(schedule, formula):
    p = dl.Parameter([0.0])
    optimizer = dl.SGD([p], schedule, momentum=0)
    assert optimizer.learning_rate.item() == pytest.approx(formula(0))
    for step in range(25):
        p.assign([0.0])
        p.grad = dl.ones(1)
        optimizer.step()
        assert optimizer.learning_rate.item() == pytest.approx(formula(step), rel=1e-9, abs=1e-17)
        assert p.item() == pytest.approx(-formula(step), rel=1e-6, abs=1e-17)


@every_schedule
def test_takes_and_gives_a_0d_tensor_of_the_steps_dtype(schedule, formula):
    for dtype in ("float32", "float64"):
        rate = schedule(dl.tensor(7.0, dtype))
        assert rate.shape == ()
        assert rate.dtype == dtype
        assert rate.item() == pytest.approx(formula(7), rel=1e-5)


@every_schedule
def test_runs_on_a_device(schedule, formula, strict_gpu):
    rate = schedule(dl.tensor(7.0, "float64", "gpu"))
    assert rate.device == "gpu:0"
    assert rate.item() == pytest.approx(formula(7))


@pytest.mark.parametrize(
    ("schedule", "values"),
    [
        (Step(1, period=2), {0: 1, 1: 1, 2: 0.1, 3: 0.1, 4: 0.01}),
        (Cosine(1, steps=10), {0: 1, 5: 0.5, 10: 0, 11: 0, 1000: 0}),
        (Cosine(1, steps=10, restart=True), {0: 1, 5: 0.5, 10: 1, 15: 0.5, 20: 1}),
        (Polynomial(1, steps=10, final=0.25), {0: 1, 10: 0.25, 11: 0.25, 1000: 0.25}),
        (Cyclical(1, 3, period=4), {0: 1, 1: 2, 2: 3, 3: 2, 4: 1, 6: 3}),
        (Warmup(1, steps=4), {0: 0.25, 3: 1, 4: 1, 1000: 1}),
    ],
    ids=str,
)
def test_values_that_can_be_worked_out_by_hand(schedule, values):
    table = schedule.values(max(values) + 1)
    for step, value in values.items():
        assert table[step] == pytest.approx(value, abs=1e-15)


# --- sequences ------------------------------------------------------------------------------------

simple = st.sampled_from([schedule for schedule, _ in FORMULAS])


@given(st.lists(st.tuples(simple, st.integers(1, 8)), min_size=1, max_size=4))
def test_a_sequence_is_its_schedules_one_after_another(parts):
    lengths = [steps for _, steps in parts[:-1]] + [20]  # the last one goes on
    expected = [rate for (part, _), steps in zip(parts, lengths, strict=True) for rate in part.values(steps)]
    numpy.testing.assert_allclose(Sequence(*parts).values(len(expected)), expected, rtol=1e-12, atol=1e-17)


def test_sequences_nest():
    inner = Sequence((Warmup(1, 2), 2), (Constant(5), 2))
    assert Sequence((inner, 4), (inner, 4)).values(8) == [0.5, 1, 5, 5, 0.5, 1, 5, 5]


def test_a_sequence_needs_a_schedule():
    with pytest.raises(ValueError, match="Sequence needs at least one pair"):
        Sequence()


def test_a_sequence_of_schedules_without_numbers_of_steps_is_refused():
    with pytest.raises((TypeError, ValueError), match="pair"):
        Sequence(Warmup(1, 2), Constant(1))


# --- bad arguments, and schedules of one's own ----------------------------------------------------


@pytest.mark.parametrize(
    "make",
    [
        lambda: Step(0.1, period=0),
        lambda: Cosine(0.1, steps=0),
        lambda: Polynomial(0.1, steps=-1),
        lambda: Cyclical(0.1, 0.2, period=0),
        lambda: Warmup(0.1, steps=0),
    ],
    ids=["Step", "Cosine", "Polynomial", "Cyclical", "Warmup"],
)
def test_a_schedule_over_no_steps_is_refused(make):
    with pytest.raises(ValueError, match=r"(steps|period) must be"):
        make()


def test_schedules_print_and_compare_as_what_they_are():
    assert repr(Warmup(0.1, steps=5)) == "Warmup(learning_rate=0.1, steps=5)"
    assert Step(0.1, 10) == Step(0.1, period=10, factor=0.1)
    assert Step(0.1, 10) != Step(0.1, 11)


def test_any_function_of_the_step_is_a_schedule():
    class Inverse(Schedule):
        def __call__(self, step):
            return 1 / (1 + step)

    assert Inverse().values(3) == pytest.approx([1, 1 / 2, 1 / 3])
    for schedule in (Inverse(), lambda step: 1 / (1 + step)):
        optimizer = dl.SGD([p := dl.Parameter([0.0])], schedule, momentum=0)
        for _ in range(3):
            p.grad = dl.ones(1)
            optimizer.step()
        assert p.item() == pytest.approx(-(1 + 1 / 2 + 1 / 3))


def test_the_base_class_is_no_schedule():
    with pytest.raises(NotImplementedError):
        Schedule()(dl.tensor(0.0))
