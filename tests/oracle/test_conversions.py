"""Tensors of PyTorch and ours become each other."""

import numpy
import pytest

import minidl as dl

torch = pytest.importorskip(
    "torch", reason="PyTorch, the oracle, is not installed: pip install -e '.[oracle]'"
)
pytestmark = pytest.mark.oracle


@pytest.mark.parametrize("convert", [torch.as_tensor, torch.asarray, torch.from_dlpack, torch.tensor])
@pytest.mark.parametrize("dtype", ["float32", "float64", "int64", "uint8"])
def test_ours_become_pytorchs(convert, dtype):
    x = dl.tensor([[1, 2], [3, 4]], dtype)
    y = convert(x)
    assert (y.dtype, y.tolist()) == (getattr(torch, dtype), x.tolist())
    y += 1
    assert x.tolist() == [[1, 2], [3, 4]]


def test_pytorchs_become_ours():
    x = dl.tensor(torch.tensor([1.0, 2.0]))
    assert (x.dtype, x.tolist()) == (numpy.float32, [1, 2])
    with pytest.raises(TypeError, match="the tape of another library ends here: detach the Tensor first"):
        dl.tensor(torch.tensor([1.0], requires_grad=True))
