import math
from collections import OrderedDict, defaultdict
from typing import NamedTuple

import numpy
import pytest
from hypothesis import given
from hypothesis import strategies as some

from minidl import nests


class Pair(NamedTuple):
    first: object
    second: object


values = some.one_of(some.none(), some.integers(), some.floats(), some.text(max_size=3))
any_nest = some.recursive(
    values,
    lambda inside: some.one_of(
        some.lists(inside, max_size=3),
        some.lists(inside, max_size=3).map(tuple),
        some.tuples(inside, inside).map(lambda two: Pair(*two)),
        some.dictionaries(some.text(max_size=2), inside, max_size=3),
    ),
)


def is_float(x):
    return isinstance(x, float)


@given(any_nest)
def test_a_nest_is_rebuilt_from_its_structure(nest):
    found, structure = nests.flatten(nest, is_float)
    assert found == [x for x in nests.leaves(nest) if is_float(x)] or any(map(math.isnan, found))
    assert repr(nests.rebuild(structure, found)) == repr(nest)
    assert nests.constants(structure) == [x for x in nests.leaves(nest) if not is_float(x)]
    other = nests.flatten(nest, is_float)[1]
    assert other == structure
    assert hash(other) == hash(structure)


@given(any_nest)
def test_map_leaves_keeps_all_else(nest):
    mapped = nests.map_leaves(lambda x: [x], nest, is_float)
    assert repr(nests.leaves(mapped)) == repr(nests.leaves(nest))


def test_names_are_keys_and_positions():
    nest = {"a": 1, "b": [2, {"c": (3, [])}], "d": {}}
    assert list(nests.named_leaves(nest)) == [("a", 1), ("b.0", 2), ("b.1.c.0", 3)]
    assert list(nests.named_leaves(nest, "x", lambda x: isinstance(x, list))) == [
        ("x.a", 1),
        ("x.b", [2, {"c": (3, [])}]),
    ]
    assert list(nests.named_leaves(5)) == [("", 5)]


def test_a_container_that_is_a_leaf_is_not_taken_apart():
    found, structure = nests.flatten([(1, 2), [3]], lambda x: isinstance(x, tuple))
    assert found == [(1, 2)]
    assert nests.rebuild(structure, ["here"]) == ["here", [3]]


def test_named_tuples_and_dicts_keep_their_type():
    nest = Pair(1.5, OrderedDict(b=2.5, a="text"))
    rebuilt = nests.map_leaves(lambda x: x + 1, nest, is_float)
    assert rebuilt == Pair(2.5, OrderedDict(b=3.5, a="text"))
    assert type(rebuilt) is Pair
    assert type(rebuilt.second) is OrderedDict
    assert type(nests.map_leaves(lambda x: x, defaultdict(list, a=1.5), is_float)) is dict


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ([1], (1,)),
        ([1], [1, 1]),
        ([1], [True]),
        ([1], [1.0]),
        ([0.0], [-0.0]),
        ([0j], [complex(0, -0.0)]),
        ([numpy.float32(1)], [1.0]),
        ({"a": 1}, {"b": 1}),
        ({"a": 1, "b": 2}, {"b": 2, "a": 1}),
        ((1, 2), Pair(1, 2)),
        ([None], [[]]),
        ([()], [[]]),
    ],
)
def test_structures_differ(one, other):
    def never(x):
        return False

    assert nests.flatten(one, never)[1] != nests.flatten(other, never)[1]


def test_structures_with_nan_are_equal():
    def structure(*values):
        return nests.flatten(values, lambda x: False)[1]

    assert structure(math.nan, 0.0) == structure(float("nan"), 0.0)


def test_a_structure_with_a_constant_that_cannot_be_hashed_is_no_key():
    structure = nests.flatten([{1, 2}], is_float)[1]
    with pytest.raises(TypeError, match="unhashable"):
        hash(structure)
    assert nests.constants(structure) == [{1, 2}]


@pytest.mark.parametrize(("values", "word"), [([1.5], "fewer"), ([1.5, 2.5, 3.5], "more")])
def test_the_number_of_values_must_fit(values, word):
    structure = nests.flatten([0.5, [0.5]], is_float)[1]
    with pytest.raises(ValueError, match=f"{word} values"):
        nests.rebuild(structure, values)
