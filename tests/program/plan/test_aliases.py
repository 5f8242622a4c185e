"""Which values are views, and whether a thread's block of one is within its block of the memory."""

import numpy
import pytest

from minidl.primitives.elementwise import negative
from minidl.primitives.indexing import slice_
from minidl.primitives.shape import reshape_, transpose_
from minidl.program.plan.aliases import Aliases
from minidl.program.program import Gemm, Instruction, Program, Value

FLOAT = numpy.dtype("float32")


def aliases_of(primitive, attributes, rows, columns, shape, by_columns=False):
    """Return what is known of a product (rows, columns) and a view of it of a shape."""
    a = Value((rows, 3), FLOAT, "input", numpy.ones((rows, 3), FLOAT))
    b = Value((3, columns), FLOAT, "input", numpy.ones((3, columns), FLOAT))
    product, view = Value((rows, columns), FLOAT), Value(shape, FLOAT)
    steps = [Gemm([(a, b)], product), Instruction(primitive, [product], attributes, view)]
    return Aliases(Program([a, b], steps, [view], {}), {product} if by_columns else set()), product, view


@pytest.mark.parametrize(
    ("batch", "threads", "same"), [(16, 2, True), (16, 4, True), (15, 2, False), (15, 3, True), (6, 4, False)]
)
def test_rows_of_a_sequence_are_rows_of_the_product(batch, threads, same):
    shape = (batch, 5, 8)
    aliases, product, view = aliases_of(reshape_, {"shape": shape}, batch * 5, 8, shape)
    assert aliases.root[view] is product
    assert aliases.same_block(view, 0, threads) is same
    assert not aliases.same_block(view, 1, threads)
    assert not aliases.same_block(view, 2, threads)
    assert aliases.same_block(product, 0, threads)
    assert not aliases.same_block(product, 1, threads)


def test_a_transposed_view_has_its_blocks_on_the_other_axis():
    aliases, _, view = aliases_of(transpose_, {"axes": (1, 0)}, 8, 6, (6, 8))
    assert aliases.same_block(view, 1, 2)
    assert not aliases.same_block(view, 0, 2)


def test_a_matrix_stored_by_columns_has_its_blocks_there():
    aliases, product, view = aliases_of(transpose_, {"axes": (1, 0)}, 4, 8, (8, 4), by_columns=True)
    assert aliases.same_block(product, 1, 2)
    assert not aliases.same_block(product, 0, 2)
    assert aliases.same_block(view, 0, 2)
    assert not aliases.same_block(view, 1, 2)


def test_columns_of_each_row_are_within_the_row_and_fewer_rows_are_not():
    aliases, _, view = aliases_of(slice_, {"key": (slice(None), slice(2, 5))}, 8, 6, (8, 3))
    assert aliases.same_block(view, 0, 2)
    aliases, _, view = aliases_of(slice_, {"key": (slice(4, 8),)}, 8, 6, (4, 6))
    assert not aliases.same_block(view, 0, 2)


def test_rows_from_the_end_are_other_blocks():
    aliases, _, view = aliases_of(reshape_, {"shape": (2, 4, 6)}, 8, 6, (2, 4, 6))
    aliases.array[view] = aliases.array[view][::-1]
    assert not aliases.same_block(view, 0, 2)


def test_one_number_has_no_blocks():
    x = Value((), FLOAT, "input", numpy.ones((), FLOAT))
    double, view = Value((), FLOAT), Value((1, 1), FLOAT)
    steps = [Instruction(negative, [x], {}, double), Instruction(reshape_, [double], {"shape": (1, 1)}, view)]
    aliases = Aliases(Program([x], steps, [view], {}), set())
    assert aliases.root[view] is double
    assert not aliases.same_block(view, 0, 1)
    assert not aliases.same_block(view, 0, 2)
