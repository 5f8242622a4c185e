"""What all primitives share."""

import pytest

import minidl as dl
from minidl.primitives.primitive import Primitive


def test_names_are_unique():
    with pytest.raises(ValueError, match="there are two primitives named 'exp'"):
        Primitive("exp", lambda xp, x, out=None: x, gradients=(None,))


def test_prints_its_name():
    assert repr(dl.exp) == "<primitive exp>"
