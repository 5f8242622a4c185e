import json

import numpy
import pytest

import minidl as dl
from minidl.primitives.random import random_normal, random_uniform

DRAWS = {"uniform": random_uniform, "normal": random_normal}
every_draw = pytest.mark.parametrize("draw", DRAWS.values(), ids=DRAWS)


def draws(draw, generator, times=3):
    return [draw(dl.zeros((2, 3)), generator=generator).numpy() for _ in range(times)]


@every_draw
def test_a_generator_goes_on_from_a_state(draw):
    generator, other = dl.Generator(5), dl.Generator(6)
    draws(draw, generator)
    state = generator.state_dict()
    expected = draws(draw, generator)
    generator.load_state_dict(state)
    other.load_state_dict(state)
    numpy.testing.assert_array_equal(draws(draw, generator), expected)
    numpy.testing.assert_array_equal(draws(draw, other), expected)


@every_draw
def test_a_state_does_not_change_with_its_generator(draw):
    generator = dl.Generator(5)
    state = generator.state_dict()
    text = json.dumps(state)
    draws(draw, generator)
    assert json.dumps(state) == text
    assert json.dumps(generator.state_dict()) != text


def test_a_state_goes_through_json():
    generator = dl.Generator(5)
    draws(random_uniform, generator, times=2)
    state = json.loads(json.dumps(generator.state_dict()))
    expected = draws(random_normal, generator)
    other = dl.Generator()
    other.load_state_dict(state)
    numpy.testing.assert_array_equal(draws(random_normal, other), expected)


def test_asking_for_the_state_does_not_change_the_draws():
    one, other = dl.Generator(5), dl.Generator(5)
    one.state_dict()
    numpy.testing.assert_array_equal(draws(random_uniform, one), draws(random_uniform, other))


@pytest.mark.parametrize("kernels", ["eager", "numpy"])
def test_a_training_with_dropout_goes_on_bit_for_bit(kernels, rng):
    batches = rng.normal(size=(8, 6, 4)).astype("float32")

    def training():
        network = dl.Network([dl.Dense(4, 8, seed=0), dl.Dropout(0.5, seed=1), dl.Dense(8, 4, seed=2)])
        optimizer = dl.Adam(network.parameters())

        def step(x):
            loss = dl.mean_squared_error(network(x), x)
            loss.backward()
            optimizer.step()
            return loss

        return network, optimizer, step if kernels == "eager" else dl.compile(step)

    network, optimizer, step = training()
    for batch in batches[:4]:
        step(dl.tensor(batch))
    saved = network.state_dict(), optimizer.state_dict(), network[1].generator.state_dict()
    expected = [step(dl.tensor(batch)).item() for batch in batches[4:]]

    network, optimizer, step = training()
    step(dl.tensor(batches[0]))
    network.load_state_dict(saved[0])
    optimizer.load_state_dict(saved[1])
    network[1].generator.load_state_dict(saved[2])
    assert [step(dl.tensor(batch)).item() for batch in batches[4:]] == expected
