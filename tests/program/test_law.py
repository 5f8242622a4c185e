"""A compiled function does what the plain one does, or refuses, or records again: nothing else.

Kinds of values in all places where code can read them (law_values), and scripts (law_cases, law_reading,
law_numbers) run in a plain and in a compiled world (law), and all results and all state are compared.
"""

import numpy
import pytest
from hypothesis import given, settings

import minidl as dl
from tests.program import law_numbers, law_reading
from tests.program.law import assert_lawful
from tests.program.law_cases import CASES, MAY_BE_REFUSED, REFUSED
from tests.program.law_values import KINDS, PLACES
from tests.program.networks import needs_c
from tests.program.random_programs import changing_functions

assert law_numbers.USES  # these two have entered their scripts in the tables
assert law_reading.__doc__

X = dl.tensor([[1.0, -2.0, 3.0], [4.0, 5.0, -6.0]])


def changing(kind, place):
    """Return the script of a value that changes in a place: after a call, before the first one, and back."""
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


def ways(names, every):
    """Return pytest's parameters: each name with NumPy's kernels, and some with C's, more of them if slow.

    What is compared does not depend on the kernels, and each script builds several libraries.
    """
    names = list(names)
    as_c = [
        pytest.param(name, "c", marks=[needs_c, *([pytest.mark.slow] if i % every else [])])
        for i, name in enumerate(names)
        if i % every == 0 or i % 8 == 0
    ]
    return [*(pytest.param(name, "numpy") for name in names), *as_c]


PAIRS = [(kind, place) for kind in KINDS for place in PLACES]
#: Each kind in a few places, and each place with a few kinds.
FEW = [pair for i, pair in enumerate(PAIRS) if i % 11 == 0 or pair[1] in ("in_layer",)]


@pytest.mark.parametrize(("kind", "place"), FEW)
def test_changed_values(kind, place):
    check_changed_value(kind, place, "numpy")


@needs_c
@pytest.mark.parametrize(("kind", "place"), PAIRS[::397])
def test_changed_values_as_c(kind, place):
    check_changed_value(kind, place, "c")


@pytest.mark.slow
@pytest.mark.parametrize("kernels", ["numpy", pytest.param("c", marks=needs_c)])
@pytest.mark.parametrize("place", PLACES)
def test_all_changed_values(place, kernels):
    for kind in list(KINDS)[:: 1 if kernels == "numpy" else 32]:
        check_changed_value(kind, place, kernels)


def check_changed_value(kind, place, kernels):
    world, refusal = assert_lawful(changing(kind, place), {"kernels": kernels})
    assert refusal is None
    assert world.programs()


@pytest.mark.parametrize(("name", "kernels"), ways(CASES, 60))
def test_scripts(name, kernels):
    _, refusal = assert_lawful(CASES[name], {"kernels": kernels})
    assert refusal is None, refusal


@pytest.mark.parametrize(("name", "kernels"), ways(MAY_BE_REFUSED, 40))
def test_scripts_that_may_be_refused(name, kernels):
    assert_lawful(MAY_BE_REFUSED[name], {"kernels": kernels})


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
