"""Which elementwise instructions are computed together."""

import numpy

import minidl as dl
from minidl.program.passes import group, pipeline
from minidl.program.program import Group
from tests.program.networks import recorded


def test_elementwise_chains_form_groups_with_their_broadcast_operands():
    bias, scale = dl.Parameter(numpy.ones(3)), dl.Parameter(numpy.ones((4, 1)))

    def function(x):
        y = dl.relu(x + bias)
        return (y * scale - 1) * dl.sigmoid(y), y

    program = pipeline.optimize(recorded(function, numpy.ones((4, 3))))
    assert len(program.steps) == 1
    (step,) = program.steps
    assert isinstance(step, Group)
    assert set(step.outputs) == set(program.outputs)


def test_a_group_never_waits_for_itself():
    def function(x):
        y = x * 2  # read by the sum in between and by the last product
        return y * (y + x).sum(axis=0) + dl.exp(y)

    program = group.group_elementwise(recorded(function, numpy.ones((4, 3))))
    done = set(program.inputs)
    for step in program.steps:
        assert all(v in done or v.kind != "result" for v in step.inputs)
        done.update(step.outputs if not isinstance(step, Group) else [m.output for m in step.members])
