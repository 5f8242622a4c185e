"""Functions around the shape primitives; the primitives themselves are in test_gradients.py."""

import pytest

import minidl as dl


def test_squeeze():
    x = dl.ones((1, 2, 1))
    assert dl.squeeze(x).shape == (2,)
    assert x.squeeze().shape == (2,)
    assert x.squeeze(0).shape == (2, 1)
    assert x.squeeze(-1).shape == (1, 2)
    with pytest.raises(ValueError, match="squeeze: axis 1 of shape \\(1, 2, 1\\) has length 2, not 1"):
        x.squeeze(1)
