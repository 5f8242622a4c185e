import pytest

import minidl as dl
from minidl.checks import assert_compiled_equals
from minidl.errors import RecordingError
from minidl.program import verify


def make_step():
    network = dl.Network([dl.Dense(3, 2, seed=0), dl.Tanh(), dl.Dropout(0.5, seed=0)])
    optimizer = dl.Adam(network.parameters())

    def step(x):
        loss = network(x).sum()
        loss.backward()
        optimizer.step()
        return loss

    return network, optimizer, step


def test_a_step_whose_surroundings_change_is_as_the_plain_one():
    network, optimizer, step = make_step()

    def change(i):
        optimizer.learning_rate = 0.1 * (i + 1)
        network.train(i % 2 == 0)

    start = network[0].weight.numpy()
    assert_compiled_equals(step, lambda i: [dl.ones((4, 3)) * i], calls=5, change=change)
    assert (network[0].weight.numpy() != start).any()


def test_a_difference_is_found(monkeypatch):
    _, _, step = make_step()
    run = verify.Plain.__init__
    monkeypatch.setattr(
        verify.Plain,
        "__init__",
        lambda self, function, arguments, keywords: run(self, lambda x: function(x * 2), arguments, keywords),
    )
    with pytest.raises(AssertionError, match=r"verify: (output 0|new state .*) differs"):
        assert_compiled_equals(step, lambda i: [dl.ones((4, 3))])


def test_what_cannot_be_compiled_is_refused():
    with pytest.raises(RecordingError, match="reads the value"):
        assert_compiled_equals(lambda x: x * x.sum().item(), lambda i: [dl.ones(3)])
