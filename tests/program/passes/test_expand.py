"""Softmax and logsumexp as what they are made of."""

import numpy
import pytest

import minidl as dl
from minidl.program.passes import expand
from tests.program.networks import recorded
from tests.program.passes.evaluation import evaluated, names


@pytest.mark.parametrize("keepdims", [False, True])
def test_expanded_reductions_keep_what_is_not_finite(keepdims):
    x = numpy.array([[1.0, 1000.0], [-numpy.inf, -numpy.inf], [numpy.inf, 0.0], [numpy.nan, 0.0]])

    def function(x):
        return dl.logsumexp(x, axis=1, keepdims=keepdims), dl.softmax(x)

    with numpy.errstate(all="ignore"):
        program = recorded(function, x)
        expanded = expand.expand_reductions(program)
        assert not {"softmax", "logsumexp"} & set(names(expanded))
        for ours, theirs in zip(evaluated(expanded, x), evaluated(program, x), strict=True):
            numpy.testing.assert_array_equal(ours, theirs)
