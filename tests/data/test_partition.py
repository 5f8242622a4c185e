import numpy
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minidl.data import partition

fractions = st.lists(st.floats(0, 1), min_size=1, max_size=6)


@given(st.integers(1, 300), fractions, st.integers(0, 2**32))
def test_disjoint_and_as_large_as_asked_for(n, shares, seed):
    total = sum(shares)
    shares = [share / max(total, 1) for share in shares]
    parts = partition(n, shares, seed)
    assert len(parts) == len(shares)
    together = numpy.concatenate(parts)
    assert len(set(together.tolist())) == len(together)
    assert all(0 <= i < n for i in together)
    for part, share in zip(parts, shares, strict=True):
        assert part.dtype == numpy.int64
        assert abs(len(part) - share * n) <= 1
    if total >= 1:
        assert len(together) == n


def test_the_originals_split():
    validation, test = partition(5000, [0.6, 0.4], seed=0)
    assert (len(validation), len(test)) == (3000, 2000)


@pytest.mark.parametrize("parts", range(1, 50))
def test_equal_parts_cover_everything(parts):
    """Though the fractions do not sum to exactly 1 in floating point."""
    sizes = [len(part) for part in partition(1000, [1 / parts] * parts, seed=0)]
    assert sum(sizes) == 1000
    assert max(sizes) - min(sizes) <= 1


def test_random_but_reproducible():
    first, second, other = (partition(100, [0.5, 0.5], seed)[0] for seed in (1, 1, 2))
    assert numpy.array_equal(first, second)
    assert not numpy.array_equal(first, other)
    assert not numpy.array_equal(first, numpy.sort(first))
    assert not numpy.array_equal(partition(100, [1.0])[0], partition(100, [1.0])[0])


def test_a_generator_moves_on():
    generator = numpy.random.default_rng(1)
    first, second = (partition(100, [1.0], generator)[0] for _ in range(2))
    assert numpy.array_equal(first, partition(100, [1.0], 1)[0])
    assert not numpy.array_equal(first, second)


@pytest.mark.parametrize(
    ("n", "shares", "message"),
    [
        (10, [0.5, -0.1], "0 or greater"),
        (10, [0.5, float("nan")], "0 or greater"),
        (10, [0.7, 0.4], "at most 1"),
        (10, [float("inf")], "at most 1"),
        (10, [], "list of fractions"),
        (10, 0.5, "list of fractions"),
        (0, [1.0], "at least 1 observation"),
    ],
)
def test_bad_arguments(n, shares, message):
    with pytest.raises(ValueError, match=message):
        partition(n, shares)


@pytest.mark.parametrize("shares", [[0.6, 0.4], [0.5, 0.25], [1 / 3, 1 / 3, 1 / 3], [1.0], [0.0, 1.0]])
def test_each_class_is_divided_for_itself(shares, rng):
    labels = numpy.array(["cat"] * 90 + ["dog"] * 12 + ["owl"] * 7)
    rng.shuffle(labels)
    parts = partition(len(labels), shares, 0, labels=labels)
    together = numpy.concatenate(parts)
    assert len(numpy.unique(together)) == len(together)
    if sum(shares) == 1:
        assert len(together) == len(labels)
    for part, share in zip(parts, shares, strict=True):
        for label, count in (("cat", 90), ("dog", 12), ("owl", 7)):
            assert abs((labels[part] == label).sum() - share * count) <= 1
    if len(parts[0]) > 20:
        assert len(set(labels[parts[0][:20]])) > 1  # mixed, not one class after another


def test_stratified_parts_are_reproducible():
    labels = numpy.arange(50) % 3
    first, again, other = (partition(50, [0.5, 0.5], seed, labels)[0] for seed in (1, 1, 2))
    numpy.testing.assert_array_equal(first, again)
    assert not numpy.array_equal(first, other)
    with pytest.raises(ValueError, match=r"one label for each of 50 observations; got shape \(49,\)"):
        partition(50, [1.0], labels=labels[1:])
