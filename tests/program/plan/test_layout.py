"""Which values are stored by columns, and which matrices BLAS takes."""

import numpy

import minidl as dl
from minidl.program.plan.layout import blas_takes, feature_major, is_same_place, major_axis
from tests.program.networks import trained_step


def test_few_rows_are_stored_by_columns():
    few, many = (trained_step(batch).programs[0] for batch in (32, 256))
    assert feature_major(few, 48)
    assert not feature_major(many, 48)
    by_columns = [array for array in few.executor.memory.arrays.values() if major_axis(array) == 1]
    assert by_columns


def results_by_columns(function):
    """Return which results are stored by columns, of a function of a product of few rows."""
    weight = dl.Parameter(numpy.ones((64, 96), "float32"))
    step = dl.compile(lambda x: function(x @ weight), kernels="numpy")
    step(numpy.ones((8, 64), "float32"))
    return [v for v in feature_major(step.programs[0].executor.program, 48) if v.kind == "result"]


def test_what_is_cut_or_put_together_along_its_columns_is_stored_by_rows():
    assert results_by_columns(dl.sin)
    assert not results_by_columns(lambda z: dl.sin(z[:, :40]) @ z[:, 40:80].T)
    assert not results_by_columns(lambda z: dl.concatenate([dl.sin(z), z * z], axis=1) + 1)


def test_gradients_are_stored_as_the_states_that_they_change():
    """A weight of fewer rows than columns has a gradient that is a product of few rows."""
    weight = dl.Parameter(numpy.ones((24, 96), "float32"))
    optimizer = dl.Adam([weight])

    def step(x):
        (dl.tanh(x @ weight) ** 2).sum().backward()
        optimizer.step()

    compiled = dl.compile(step, kernels="numpy")
    compiled(numpy.ones((500, 24), "float32"))
    program = compiled.programs[0].executor.program
    assert not feature_major(program, 48)


def test_places_are_the_same_only_if_all_of_them_are():
    x = numpy.zeros((4, 4), "float32")
    assert is_same_place(x, x[:])
    assert not is_same_place(x, x.T)
    assert not is_same_place(x[1:], x[:-1])
    assert not is_same_place(x, x.copy())


def test_blas_is_not_given_what_it_cannot_take():
    matrix = numpy.ones((4, 4), "float32")
    assert blas_takes(matrix)
    assert blas_takes(matrix.T)
    assert blas_takes(matrix[1:, 1:])
    assert not blas_takes(matrix[::-1])
    assert not blas_takes(matrix[:, ::2])
    assert not blas_takes(numpy.broadcast_to(numpy.float32(1), (4, 4)))
    assert not blas_takes(matrix.astype("float16"))
