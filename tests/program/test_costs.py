"""What steps cost, counted by hand."""

import numpy
import pytest

import minidl as dl
from minidl.program.costs import bytes_moved, flops, work
from minidl.program.plan.tasks import Copy
from minidl.program.program import Gemm, Group
from tests.program.networks import recorded

X, W = numpy.ones((4, 3), "float32"), numpy.ones((3, 5), "float32")


@pytest.mark.parametrize(
    ("function", "inputs", "operations", "moved"),
    [
        (lambda x, w: x @ w, [X, W], 2 * 4 * 3 * 5, 4 * (12 + 15 + 20)),
        (lambda x: dl.exp(x), [X], 12, 4 * 24),
        (lambda x: x + x, [X], 12, 4 * 24),
        (lambda x: x.sum(axis=0), [X], 12, 4 * (12 + 3)),
        (lambda x: x.T, [X], 0, 0),
        (lambda x: x[1:], [X], 0, 0),
    ],
)
def test_single_instructions(function, inputs, operations, moved):
    (step,) = recorded(function, *inputs).steps
    assert flops(step) == operations
    assert bytes_moved(step) == moved


def test_sums_of_products_and_groups():
    program = recorded(lambda x, w: dl.exp(x @ w) * 2, X, W)
    product, *members = program.steps
    gemm = Gemm([tuple(product.inputs)] * 2, product.output)
    assert flops(gemm) == 2 * flops(product)
    group = Group(members, [members[-1].output])
    assert flops(group) == work(group) == 40
    assert bytes_moved(group) == 4 * (20 + 1 + 20)


def test_stacks_of_products_count_every_matrix():
    x = numpy.ones((6, 4, 3))
    (step,) = (s for s in recorded(lambda x: x @ x.transpose(0, 2, 1), x).steps if s.name == "matmul")
    assert flops(step) == 6 * 2 * 4 * 3 * 4
    assert work(step) < flops(step)


def test_a_copy_to_a_state_moves_its_value_twice():
    (step,) = recorded(lambda x: x * 2, X).steps
    copy = Copy(step.inputs[0], step.output)
    assert bytes_moved(copy) == 2 * step.output.nbytes
