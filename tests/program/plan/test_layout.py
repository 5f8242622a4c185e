"""Which values are stored by columns, and which matrices BLAS takes."""

import numpy

from minidl.program.plan.layout import blas_takes, feature_major, major_axis
from tests.program.networks import trained_step


def test_few_rows_are_stored_by_columns():
    few, many = (trained_step(batch).programs[0] for batch in (32, 256))
    assert feature_major(few, 48)
    assert not feature_major(many, 48)
    by_columns = [array for array in few.executor.memory.arrays.values() if major_axis(array) == 1]
    assert by_columns


def test_blas_is_not_given_what_it_cannot_take():
    matrix = numpy.ones((4, 4), "float32")
    assert blas_takes(matrix)
    assert blas_takes(matrix.T)
    assert blas_takes(matrix[1:, 1:])
    assert not blas_takes(matrix[::-1])
    assert not blas_takes(matrix[:, ::2])
    assert not blas_takes(numpy.broadcast_to(numpy.float32(1), (4, 4)))
    assert not blas_takes(matrix.astype("float16"))
