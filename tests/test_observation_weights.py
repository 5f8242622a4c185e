import numpy
import pytest

import minidl as dl
from minidl.observation_weights import masked, ratio, weights_like


@pytest.mark.parametrize("shape", [(), (2,), (2, 3), (2, 3, 4)])
def test_weights_of_the_first_axes_serve_all_others(shape):
    weight = numpy.arange(1, 1 + numpy.prod(shape, dtype=int)).reshape(shape)
    full = weights_like("loss", weight, dl.zeros((2, 3, 4)))
    expected = numpy.broadcast_to(weight.reshape(shape + (1,) * (3 - len(shape))), (2, 3, 4))
    assert full.dtype == "float32"
    numpy.testing.assert_array_equal(full.numpy(), expected)


@pytest.mark.parametrize("shape", [(3,), (2, 4), (2, 3, 4, 1)])
def test_others_are_refused(shape):
    with pytest.raises(ValueError, match=r"loss: weight must have the shape \(2, 3, 4\) or its first axes"):
        weights_like("loss", numpy.ones(shape), dl.zeros((2, 3, 4)))


def test_what_is_masked_does_not_count():
    losses = dl.tensor([numpy.nan, numpy.inf, 3.0])
    assert masked(losses, dl.tensor([0.0, 0.0, 2.0])).tolist() == [0, 0, 6]
    assert ratio(dl.tensor(0.0), dl.tensor(0.0)).item() == 0
    assert ratio(dl.tensor(3.0), dl.tensor(2.0)).item() == 1.5
