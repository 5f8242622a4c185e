"""Saving an optimizer's state and going on from it."""

import numpy
import pytest

import minidl as dl
from minidl import weights

OPTIMIZERS = {
    "SGD": lambda p, rate: dl.SGD(p, rate, momentum=0.0),
    "momentum": lambda p, rate: dl.SGD(p, rate, momentum=0.9, l2=1e-3),
    "Nesterov": lambda p, rate: dl.SGD(p, rate, nesterov=True),
    "RMSProp": lambda p, rate: dl.RMSProp(p, rate, clip_global_norm=0.1),
    "Adam": lambda p, rate: dl.Adam(p, rate, l2=1e-3),
    "AdamW": lambda p, rate: dl.AdamW(p, rate),
    "AMSGrad": lambda p, rate: dl.Adam(p, rate, amsgrad=True),
    "Nadam": lambda p, rate: dl.Nadam(p, rate),
    "Adagrad": lambda p, rate: dl.Adagrad(p, rate),
    "averaged": lambda p, rate: dl.Adam(p, rate, average_decay=0.9),
    "groups": lambda p, rate: dl.AdamW(
        [
            {"parameters": p[:2], "learning_rate_factor": 0.5},
            {"parameters": p[2:], "weight_decay": 0.3, "l2": 0.1},
        ],
        rate,
    ),
}
RATES = {
    "constant": lambda: 0.01,
    "warmup and cosine": lambda: dl.schedules.Sequence(
        (dl.schedules.Warmup(0.05, 4), 4), (dl.schedules.Cosine(0.05, 10), 10)
    ),
    "exponential": lambda: dl.schedules.Exponential(0.05, 0.8),
}
every_optimizer = pytest.mark.parametrize("make", OPTIMIZERS.values(), ids=OPTIMIZERS)


class Training:
    """A small network with an optimizer, and one step of them."""

    def __init__(self, make, rate=0.01, compiled=False, dtype="float32"):
        self.network = dl.Network([dl.Dense(5, 4, seed=1), dl.Tanh(), dl.Dense(4, 5, seed=2)]).astype(dtype)
        self.optimizer = make(self.network.parameters(), rate)
        self.step = dl.compile(self._step) if compiled else self._step

    def _step(self, x):
        loss = dl.mean_squared_error(self.network(x), x)
        loss.backward()
        self.optimizer.step()
        return loss

    def run(self, batches):
        return [self.step(dl.tensor(batch)).item() for batch in batches]

    def take_over(self, other):
        self.network.load_state_dict(other.network.state_dict())
        self.optimizer.load_state_dict(other.optimizer.state_dict())


def assert_same_bits(one, other):
    for ours, theirs in (
        (one.network.state_dict(), other.network.state_dict()),
        (one.optimizer.state_dict(), other.optimizer.state_dict()),
    ):
        assert list(ours) == list(theirs)
        assert all(ours[name].tobytes() == theirs[name].tobytes() for name in ours)


@pytest.fixture
def batches(rng):
    return list(rng.normal(size=(12, 8, 5)).astype("float32"))


# --- going on -------------------------------------------------------------------------------------


@every_optimizer
@pytest.mark.parametrize("rate", RATES.values(), ids=RATES)
@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "compiled"])
def test_a_fresh_optimizer_goes_on_bit_for_bit(make, rate, compiled, batches):
    whole, fresh = Training(make, rate(), compiled), Training(make, rate(), compiled)
    whole.run(batches[:6])
    fresh.run(batches[6:8])  # state of its own, which must not matter
    fresh.take_over(whole)
    assert_same_bits(fresh, whole)
    assert fresh.run(batches[6:]) == whole.run(batches[6:])
    assert_same_bits(fresh, whole)


@every_optimizer
def test_the_state_goes_through_a_file(make, batches, tmp_path):
    whole, fresh = Training(make), Training(make)
    whole.run(batches[:6])
    weights.save(whole.optimizer.state_dict(), tmp_path / "optimizer.safetensors")
    fresh.network.load_state_dict(whole.network.state_dict())
    fresh.optimizer.load_state_dict(weights.read(tmp_path / "optimizer.safetensors"))
    assert fresh.run(batches[6:]) == whole.run(batches[6:])
    assert_same_bits(fresh, whole)


@pytest.mark.parametrize("name", ["momentum", "Nesterov", "RMSProp", "Adam", "AdamW", "Nadam", "Adagrad"])
def test_without_the_state_it_goes_another_way(name, batches):
    """That is what the tests above would not see if the state did not matter."""
    whole, fresh = Training(OPTIMIZERS[name]), Training(OPTIMIZERS[name])
    whole.run(batches[:6])
    fresh.network.load_state_dict(whole.network.state_dict())
    whole.run(batches[6:])
    fresh.run(batches[6:])
    assert not numpy.array_equal(fresh.network[0].weight.numpy(), whole.network[0].weight.numpy())


def test_loading_into_a_recorded_step_needs_no_other_program(batches):
    whole, fresh = (Training(OPTIMIZERS["Adam"], compiled=True) for _ in range(2))
    whole.run(batches[:6])
    fresh.run(batches[:1])
    program = fresh.step.programs[0]
    fresh.take_over(whole)
    fresh.run(batches[6:])
    assert fresh.step.programs == [program]


def test_an_eager_training_is_continued_by_a_compiled_one(batches):
    eager, compiled = Training(OPTIMIZERS["Adam"]), Training(OPTIMIZERS["Adam"], compiled=True)
    eager.run(batches[:6])
    compiled.take_over(eager)
    eager.run(batches[6:])
    compiled.run(batches[6:])
    for name, array in eager.network.state_dict().items():
        numpy.testing.assert_allclose(compiled.network.state_dict()[name], array, rtol=1e-4, atol=1e-6)


def test_a_learning_rate_that_was_set_is_state():
    one, other = Training(OPTIMIZERS["Adam"]), Training(OPTIMIZERS["Adam"])
    one.optimizer.set_learning_rate(0.25)
    other.take_over(one)
    assert other.optimizer.learning_rate.item() == 0.25


def test_state_of_another_dtype_is_converted(batches):
    one, other = Training(OPTIMIZERS["Adam"]), Training(OPTIMIZERS["Adam"], dtype="float64")
    one.run(batches[:3])
    other.take_over(one)
    for name, x in other.optimizer.named_tensors().items():
        assert x.dtype == "float64"
        numpy.testing.assert_array_equal(x.numpy(), one.optimizer.state_dict()[name])


def test_state_goes_from_device_to_device(strict_gpu, batches):
    here, there = Training(OPTIMIZERS["Adam"]), Training(OPTIMIZERS["Adam"])
    there.network.to("gpu")
    for batch in batches[:2]:
        there.step(dl.tensor(batch, device="gpu"))
    here.take_over(there)
    assert_same_bits(here, there)
    assert {x.device for x in here.optimizer.named_tensors().values()} == {"cpu"}
    there.take_over(here)
    assert {x.device for x in there.optimizer.named_tensors().values()} == {"gpu:0"}


# --- what the state is ----------------------------------------------------------------------------


def test_names_and_values(batches):
    training = Training(OPTIMIZERS["Adam"])
    training.run(batches[:3])
    state = training.optimizer.state_dict()
    assert list(state) == ["step_count", "learning_rate", *(f"{i}.{kind}" for i in range(4) for kind in "mv")]
    assert state["step_count"] == 3
    assert state["learning_rate"] == 0.01
    assert state["0.m"].shape == (5, 4)


def test_the_state_is_a_copy(batches):
    training = Training(OPTIMIZERS["Adam"])
    training.run(batches[:2])
    before = training.optimizer.state_dict()
    training.optimizer.state_dict()["0.m"][...] = 9
    assert training.optimizer.state_dict()["0.m"].tobytes() == before["0.m"].tobytes()
    training.run(batches[2:3])
    assert before["step_count"] == 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: state.pop("0.m"), r"missing: 0\.m \(5, 4\)"),
        (lambda state: state.update(more=numpy.zeros(2)), r"unexpected: more \(2,\)"),
        (lambda state: state.update({"1.v": numpy.zeros(3)}), r"wrong shape: 1\.v is \(3,\)"),
    ],
    ids=["missing", "unexpected", "wrong shape"],
)
def test_state_that_does_not_fit_is_refused_and_changes_nothing(change, message, batches):
    training, other = Training(OPTIMIZERS["Adam"]), Training(OPTIMIZERS["Adam"])
    training.run(batches[:3])
    state = training.optimizer.state_dict()
    change(state)
    before = other.optimizer.state_dict()
    with pytest.raises(ValueError, match=f"the state of Adam does not fit[^$]*{message}"):
        other.optimizer.load_state_dict(state)
    for name, array in other.optimizer.state_dict().items():
        numpy.testing.assert_array_equal(array, before[name])


def test_state_of_another_kind_of_optimizer_is_refused():
    adam, sgd = Training(OPTIMIZERS["Adam"]), Training(OPTIMIZERS["momentum"])
    with pytest.raises(ValueError, match="the state of SGD does not fit"):
        sgd.optimizer.load_state_dict(adam.optimizer.state_dict())
