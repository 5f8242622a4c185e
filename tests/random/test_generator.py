import json

import numpy
import pytest

import minidl as dl
from minidl.primitives.random import random_normal, random_uniform

DRAWS = {"uniform": random_uniform, "normal": random_normal}
every_draw = pytest.mark.parametrize("draw", DRAWS.values(), ids=DRAWS)


@pytest.fixture(params=["cpu", "gpu:0", "gpu:1"])
def device(request, gpu):
    if request.param[-1] == "1" and gpu.cuda.runtime.getDeviceCount() < 2:
        pytest.skip("there is one GPU here")
    return request.param


def draws(draw, generator, device, times=3):
    return [draw(dl.zeros((2, 3), device=device), generator=generator).numpy() for _ in range(times)]


@every_draw
def test_a_generator_goes_on_from_a_state(draw, device):
    generator, other = dl.Generator(5), dl.Generator(6)
    draws(draw, generator, device)
    state = generator.state_dict()
    expected = draws(draw, generator, device)
    generator.load_state_dict(state)
    other.load_state_dict(state)
    numpy.testing.assert_array_equal(draws(draw, generator, device), expected)
    numpy.testing.assert_array_equal(draws(draw, other, device), expected)


@every_draw
def test_a_state_does_not_change_with_its_generator(draw, device):
    generator = dl.Generator(5)
    state = generator.state_dict()
    text = json.dumps(state)
    draws(draw, generator, device)
    assert json.dumps(state) == text
    assert json.dumps(generator.state_dict()) != text


def test_a_state_goes_through_json(device):
    generator = dl.Generator(5)
    draws(random_uniform, generator, device, times=2)
    state = json.loads(json.dumps(generator.state_dict()))
    expected = draws(random_normal, generator, device)
    other = dl.Generator()
    other.load_state_dict(state)
    assert other.state_dict() == state  # nothing is lost before the first draw
    numpy.testing.assert_array_equal(draws(random_normal, other, device), expected)


def test_asking_for_the_state_does_not_change_the_draws(device):
    one, other = dl.Generator(5), dl.Generator(5)
    for _ in range(3):
        one.state_dict()
        numpy.testing.assert_array_equal(
            draws(random_uniform, one, device), draws(random_uniform, other, device)
        )


def test_a_state_from_a_gpu_serves_the_host_and_the_other_way_round(gpu):
    one, other = dl.Generator(5), dl.Generator(5)
    draws(random_uniform, one, "gpu")
    other.load_state_dict(one.state_dict())
    numpy.testing.assert_array_equal(draws(random_uniform, one, "cpu"), draws(random_uniform, other, "cpu"))
    one, other = dl.Generator(5), dl.Generator(7)
    draws(random_uniform, one, "cpu")
    other.load_state_dict(one.state_dict())
    numpy.testing.assert_array_equal(draws(random_uniform, one, "gpu"), draws(random_uniform, other, "gpu"))


@pytest.mark.parametrize("order", [(4, 4, 3), (3, 4, 3), (4, 3, 4)])
def test_draws_do_not_depend_on_when_a_step_was_recorded(device, order):
    """A new shape is recorded in the middle: eager and compiled steps draw the same, resumed or not."""
    results = []
    for compiled, is_resumed in ((False, False), (True, False), (False, True), (True, True)):
        layer = dl.Dropout(0.5, seed=1)
        step = dl.compile(layer.forward) if compiled else layer
        inputs = [dl.ones(n, device=device) for n in order]
        before = [step(x).tolist() for x in inputs[:2]]
        if is_resumed:
            state = layer.generator.state_dict()
            layer = dl.Dropout(0.5, seed=2)
            step = dl.compile(layer.forward) if compiled else layer
            layer.generator.load_state_dict(state)
        results.append([*before, *(step(x).tolist() for x in inputs[2:] + inputs)])
    assert results[0] == results[1] == results[2] == results[3]


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
