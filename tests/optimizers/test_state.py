"""An optimizer's state can be taken away and put back: what follows is the same to the last bit."""

import numpy
import pytest

import minidl as dl

MAKERS = {
    "sgd": lambda p: dl.SGD(p, 0.1),
    "momentum": lambda p: dl.SGD(p, 0.1, momentum=0.9, l2=0.01),
    "nesterov": lambda p: dl.SGD(p, 0.1, momentum=0.9, nesterov=True),
    "rmsprop": lambda p: dl.RMSProp(p, 0.01),
    "adam": lambda p: dl.Adam(p, 0.01, l2=0.01, clip_global_norm=1.0),
    "adam, cosine": lambda p: dl.Adam(p, dl.schedules.Cosine(0.01, steps=7)),
    "adamw": lambda p: dl.AdamW(p, 0.01),
}


def make(name, compiled, seed=0):
    network = dl.Network([dl.Dense(3, 4, seed=seed), dl.Tanh(), dl.Dense(4, 2, seed=seed + 1)])
    optimizer = MAKERS[name](network.parameters())

    def step(x, y):
        loss = dl.mean_squared_error(network(x), y)
        loss.backward()
        optimizer.step()
        return loss

    return network, optimizer, dl.compile(step) if compiled else step


@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "compiled"])
@pytest.mark.parametrize("name", MAKERS)
def test_training_goes_on_from_a_state(name, compiled, rng):
    batches = [dl.tensor(rng.normal(size=(8, n)).astype("float32")) for n in (3, 2)]
    network, optimizer, step = make(name, compiled)
    for _ in range(4):
        step(*batches)
    weights, state = network.state_dict(), optimizer.state_dict()
    for _ in range(4):
        step(*batches)
    other, fresh, other_step = make(name, compiled, seed=5)
    other_step(*batches)  # it has a state of its own by now
    other.load_state_dict(weights)
    fresh.load_state_dict(state)
    for _ in range(4):
        other_step(*batches)
    for one, again in ((network, other), (optimizer, fresh)):
        for key, array in one.state_dict().items():
            numpy.testing.assert_array_equal(again.state_dict()[key], array, err_msg=key)
    assert optimizer.state_dict()["step_count"] == 8


def test_a_state_is_a_copy():
    _, optimizer, step = make("adam", False)
    state = optimizer.state_dict()
    step(dl.ones((2, 3)), dl.ones((2, 2)))
    assert state["step_count"] == 0
    assert not state["0.m"].any()
    assert optimizer.state_dict()["0.m"].any()


def test_a_state_that_does_not_fit_changes_nothing():
    _, optimizer, step = make("adam", False)
    step(dl.ones((2, 3)), dl.ones((2, 2)))
    before = optimizer.state_dict()
    wrong = dict(before)
    del wrong["1.v"]
    wrong["2.m"] = numpy.zeros((9, 9), "float32")
    wrong["7.m"] = numpy.zeros(3, "float32")
    with pytest.raises(ValueError, match="Adam") as refusal:
        optimizer.load_state_dict(wrong)
    for line in ("missing: 1.v (4,)", "unexpected: 7.m (3,)", "wrong shape: 2.m is (9, 9)"):
        assert line in str(refusal.value)
    for name, array in optimizer.state_dict().items():
        numpy.testing.assert_array_equal(before[name], array)
