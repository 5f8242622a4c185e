import numpy
import pytest
from hypothesis import given
from hypothesis import strategies as st

import minidl as dl
from minidl.data import Vocabulary, windows


@given(st.text(min_size=1))
def test_characters_there_and_back(text):
    vocabulary = Vocabulary(text)
    codes = vocabulary.encode(text)
    assert codes.dtype == numpy.int32
    assert "".join(vocabulary.decode(codes)) == text
    assert sorted(vocabulary.tokens) == sorted(set(text))
    counts = numpy.bincount(codes)
    assert (numpy.diff(counts) <= 0).all()  # the most frequent first


def test_equal_counts_stand_in_order():
    assert Vocabulary(["b", "c", "a", "a"]).tokens == ("a", "b", "c")


def test_rare_words_are_unknown():
    words = ["a", "a", "a", "b", "b", "c", "d"]
    vocabulary = Vocabulary(words, size=3, unknown="?")
    assert len(vocabulary) == 3
    assert vocabulary.decode(vocabulary.encode(words)) == ["a", "a", "a", "b", "b", "?", "?"]
    assert Vocabulary(["?", "a", "a", "?", "?", "b"], size=2, unknown="?").tokens == ("?", "a")


def test_what_is_not_there_is_refused():
    vocabulary = Vocabulary("abc")
    with pytest.raises(ValueError, match="the token 'x' is not in the vocabulary, which has no unknown="):
        vocabulary.encode("abx")
    with pytest.raises(ValueError, match="from 0 to 2, got 1 to 3"):
        vocabulary.decode([1, 3])
    with pytest.raises(ValueError, match="there are no tokens"):
        Vocabulary("")
    with pytest.raises(ValueError, match="a size needs unknown="):
        Vocabulary("abc", size=2)
    assert repr(vocabulary) == "Vocabulary(3 tokens: 'a', 'b', 'c')"


@given(st.integers(1, 200), st.integers(1, 6), st.integers(1, 6))
def test_windows_are_the_streams_in_order(count, streams, steps):
    codes = numpy.arange(count)
    length = count // streams
    if length < steps + 1:
        with pytest.raises(ValueError, match="too few"):
            windows(codes, streams, steps)
        return
    cut = windows(codes, streams, steps)
    pairs = list(cut)
    assert len(pairs) == len(cut)
    inputs = numpy.concatenate([x for x, _ in pairs], axis=1)
    targets = numpy.concatenate([t for _, t in pairs], axis=1)
    numpy.testing.assert_array_equal(targets, inputs + 1)
    numpy.testing.assert_array_equal(inputs[:, 0], numpy.arange(streams) * length)
    assert (numpy.diff(inputs, axis=1) == 1).all()
    assert all(x.shape == t.shape == (streams, steps) for x, t in pairs)
    assert length - inputs.shape[1] <= steps  # no more is dropped than must be


@pytest.mark.parametrize(
    ("codes", "streams", "error"),
    [([[1, 2]], 1, TypeError), ([0.5] * 9, 1, TypeError), (range(9), 0, ValueError)],
)
def test_bad_arguments(codes, streams, error):
    with pytest.raises(error, match="windows takes"):
        windows(codes, streams, 2)


def test_a_stateful_network_learns_from_them():
    codes = Vocabulary("abcd" * 60).encode("abcd" * 60)
    network = dl.Network(
        [
            dl.Embedding(4, 8, seed=0),
            dl.LSTM(8, 8, return_sequences=True, stateful=True, seed=1),
            dl.Dense(8, 4, seed=2),
        ]
    )
    network[1].reset_state(4)
    trainer = dl.Trainer(
        network,
        dl.softmax_cross_entropy,
        dl.Adam(network.parameters(), 0.05),
        metrics=[dl.perplexity],
        device="cpu",
    )
    history = trainer.fit(windows(codes, 4, 10), epochs=12, verbose=False)
    assert history.epochs["perplexity"][-1] < 1.3
