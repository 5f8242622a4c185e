"""Arrays of PyTorch and JAX go in and out, with and without copies."""

import numpy
import pytest

import minidl as dl

LIBRARIES = ["torch", "jax"]


def library(name):
    module = pytest.importorskip(name, reason=f"{name} is not installed (the extra `bench`)")
    return module.numpy if name == "jax" else module


@pytest.mark.oracle
@pytest.mark.parametrize("name", LIBRARIES)
def test_in_and_out(name):
    numbers = [[1.5, -2.0], [0.0, 3.0]]
    other = library(name)
    theirs = other.asarray(numbers, dtype=other.float32)
    for ours in (dl.tensor(theirs), dl.from_dlpack(theirs)):
        assert (ours.dtype, ours.tolist()) == (numpy.float32, numbers)
        back = other.from_dlpack(ours)
        assert numpy.asarray(back).tolist() == numbers
        assert str(back.dtype).endswith("float32")
    with pytest.raises((BufferError, RuntimeError, ValueError), match="detach"):
        other.from_dlpack(dl.Parameter(numbers))


@pytest.mark.oracle
def test_pytorchs_memory_is_shared_and_ours_is_copied():
    torch = library("torch")
    theirs = torch.zeros(3)
    ours = dl.from_dlpack(theirs)
    theirs[1] = 5
    assert ours.tolist() == [0, 5, 0]
    copy = torch.from_dlpack(ours)
    copy += 1
    assert ours.tolist() == [0, 5, 0]
    assert torch.from_dlpack(ours, copy=False).data_ptr() == theirs.data_ptr()
    with pytest.raises(TypeError, match="detach"):
        dl.from_dlpack(torch.zeros(3, requires_grad=True))
    with pytest.raises(TypeError, match="bfloat16"):
        dl.from_dlpack(torch.zeros(3, dtype=torch.bfloat16))


@pytest.mark.oracle
def test_jaxs_arrays_stay_what_they_are():
    jnp = library("jax")
    theirs = jnp.zeros(3)
    ours = dl.from_dlpack(theirs)
    with pytest.raises(ValueError, match="read-only"):
        ours.assign(dl.ones(3))
    ours = dl.tensor(theirs)
    taken = jnp.from_dlpack(ours)
    ours.assign(dl.ones(3))
    assert theirs.tolist() == taken.tolist() == [0, 0, 0]
