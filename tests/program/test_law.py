"""A compiled function does what the plain one does, or refuses, or records again; it is never something else."""

import numpy
import pytest
from hypothesis import given, settings

import minidl as dl
from tests.program.law import assert_lawful
from tests.program.law_cases import CASES, MAY_BE_REFUSED, REFUSED
from tests.program.law_values import KINDS, PLACES
from tests.program.networks import needs_c
from tests.program.random_programs import changing_functions

X = dl.tensor([[1.0, -2.0, 3.0], [4.0, 5.0, -6.0]])


def changing(kind, place):
    """Return the case of a value that changes in a place: before the first call, after one, after two, back."""
    kind, place = KINDS[kind], PLACES[place]

    def case(world):
        value = kind.make()
        function, replace = place(value, kind.use)
        step = world.compile(function)
        step(X)
        value = kind.change(value)
        replace(value)
        step(X)
        step(X * 2)

        value = kind.make()
        function, replace = place(value, kind.use)
        step = world.compile(function)
        replace(kind.change(value))
        step(X)
        step(X)
        replace(kind.make())
        step(X)

    return case


PAIRS = [(kind, place) for kind in KINDS for place in PLACES]


@pytest.mark.parametrize(("kind", "place"), PAIRS)
def test_changed_values(kind, place):
    world, refusal = assert_lawful(changing(kind, place), {"kernels": "numpy"})
    assert refusal is None
    assert world.programs()


@pytest.mark.parametrize("name", CASES)
def test_scripts(name):
    world, refusal = assert_lawful(CASES[name], {"kernels": "numpy"})
    assert refusal is None, refusal


@pytest.mark.parametrize("name", MAY_BE_REFUSED)
def test_scripts_that_may_be_refused(name):
    assert_lawful(MAY_BE_REFUSED[name], {"kernels": "numpy"})


@pytest.mark.parametrize("name", REFUSED)
def test_refused_scripts(name):
    script, text = REFUSED[name]
    _, refusal = assert_lawful(script, {"kernels": "numpy"})
    assert refusal is not None
    assert text in str(refusal)
    assert "law_cases.py, line " in str(refusal)


@given(changing_functions())
@settings(max_examples=25)
def test_random_functions_in_changing_surroundings(drawn):
    check_changing(drawn, "numpy")


def check_changing(drawn, kernels):
    """Compare the results and all state after each call, up to a refusal."""
    make, calls, shape = drawn

    def case(world):
        function, watched, changes = make()
        world.watch(*watched)
        step = world.compile(function)
        rng = numpy.random.default_rng(1)
        for number, several in enumerate(calls):
            for change in several:
                changes[change % len(changes)]()
            step(dl.tensor(rng.uniform(-1, 1, shape)), (0.5, 0.75, 1.0)[number % 3])

    return assert_lawful(case, {"kernels": kernels})
