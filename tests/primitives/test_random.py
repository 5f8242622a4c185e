import json

import numpy
import pytest

import minidl as dl
from minidl.primitives.random import random_normal, random_uniform


def draws(generator, count=3):
    x = dl.zeros((2, 2))
    return [
        draw(x, generator=generator).numpy() for _ in range(count) for draw in (random_uniform, random_normal)
    ]


def test_a_generator_goes_on_from_a_state_that_json_can_hold():
    generator = dl.Generator(3)
    draws(generator)
    state = json.loads(json.dumps(generator.state_dict()))
    expected = draws(generator)
    other = dl.Generator(99)
    other.load_state_dict(state)
    for one, again in zip(expected, draws(other), strict=True):
        numpy.testing.assert_array_equal(one, again)


def test_a_state_is_a_copy():
    generator = dl.Generator(3)
    state = generator.state_dict()
    draws(generator)
    assert state != generator.state_dict()


def test_the_state_of_another_kind_of_generator_is_refused():
    generator = dl.Generator(numpy.random.Generator(numpy.random.PCG64DXSM(0)))
    with pytest.raises(ValueError, match="PCG64"):
        generator.load_state_dict(dl.Generator(0).state_dict())
