"""Parts are computed in the whole that they are put together to, results where a dying input lay."""

import numpy
import pytest

import minidl as dl
from minidl.program.plan.aliases import Aliases
from minidl.program.plan.places import share_memory
from minidl.program.program import Program
from tests.program.networks import needs_c

KERNELS = ["numpy", pytest.param("c", marks=needs_c)]


def compiled(function, *inputs, kernels="numpy", threads=1):
    """Return the executor of a function, whose results agree with the plain function's."""
    step = dl.compile(function, kernels=kernels, threads=threads)
    for _ in range(2):
        results, expected = step(*inputs), function(*map(dl.tensor, inputs))
        for result, right in zip(np_all(results), np_all(expected), strict=True):
            numpy.testing.assert_allclose(result, right, rtol=2e-5, atol=2e-5)
    executor = step.programs[0].executor
    executor.poison()
    for result, right in zip(np_all(step(*inputs)), np_all(expected), strict=True):
        numpy.testing.assert_allclose(result, right, rtol=2e-5, atol=2e-5)
    return executor


def np_all(results):
    return [x.numpy() for x in (results if isinstance(results, tuple) else (results,))]


def put_together(executor):
    return [step.name for step in executor.program.steps if set(step.outputs) & wholes(executor)]


def wholes(executor):
    aliases = Aliases(executor.program, set())
    share_memory(executor.program, aliases, executor.threads)
    return aliases.wholes


def names(executor):
    return [scheduled.task.name for phase in executor.schedule.phases for scheduled in phase]


def normal(rng, *shape, dtype="float32"):
    return rng.normal(size=shape).astype(dtype)


def recurrence(x, w):
    """A state that goes through all steps, and is returned for each of them."""
    h, states = x[:, 0] * 0.0, []
    for t in range(x.shape[1]):
        h = dl.tanh(x[:, t] + h @ w)
        states.append(h)
    return dl.stack(states, axis=1) @ w


def parts_of_parts(x, w):
    y = x @ w
    pairs = [dl.concatenate([dl.sin(y[:, :3]), dl.cos(y[:, 3:])], axis=1) for _ in range(1)]
    return dl.concatenate([*pairs, dl.exp(-y * y)], axis=1) @ dl.concatenate([w, w], axis=1).T


def heads(x, w):
    """Products whose matrices are transposed back to rows."""
    y = (x @ w).reshape(x.shape[0] // 2, 2, 3, w.shape[1] // 3).transpose(0, 2, 1, 3)
    z = (y @ y.transpose(0, 1, 3, 2)) @ y
    return z.transpose(0, 2, 1, 3).reshape(x.shape[0], w.shape[1]) @ w.T


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("kernels", KERNELS)
@pytest.mark.parametrize("batch", [6, 7, 64])
def test_steps_are_computed_where_they_are_stacked(batch, kernels, threads, dtype, rng):
    x, w = normal(rng, batch, 5, 40, dtype=dtype), normal(rng, 40, 40, dtype=dtype) / 8
    executor = compiled(recurrence, x, w, kernels=kernels, threads=threads)
    assert "concatenate" in put_together(executor)
    assert "concatenate" not in names(executor)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("kernels", KERNELS)
@pytest.mark.parametrize("rows", [5, 300])
def test_a_part_may_be_put_together_itself(rows, kernels, threads, rng):
    executor = compiled(
        parts_of_parts, normal(rng, rows, 4), normal(rng, 4, 6), kernels=kernels, threads=threads
    )
    assert names(executor).count("concatenate") <= 1  # that of the weights, which are inputs


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("kernels", KERNELS)
@pytest.mark.parametrize("rows", [8, 400])
def test_products_of_heads_are_written_as_rows(rows, kernels, threads, rng):
    executor = compiled(heads, normal(rng, rows, 4), normal(rng, 4, 12), kernels=kernels, threads=threads)
    assert "reshape" in put_together(executor)
    assert "reshape" not in names(executor)


def test_gradients_of_a_recurrence_stay_what_they_are(rng):
    x, w = normal(rng, 6, 5, 4), normal(rng, 4, 4)

    def gradient(x, w):
        w = dl.Parameter(w)
        return dl.grad((recurrence(x, w) ** 2).sum(), w)

    compiled(gradient, x, w)


def stays(function):
    """Decorate a function of which a part cannot be computed in its place."""
    return pytest.param(function, id=function.__name__)


@stays
def twice(x, w):
    y = dl.sin(x @ w)
    return dl.concatenate([y, y], axis=1) @ dl.concatenate([w, w], axis=1).T


@stays
def an_input(x, w):
    return dl.concatenate([x, dl.sin(x)], axis=0) @ w


@stays
def returned(x, w):
    y = dl.sin(x @ w)
    return y, dl.concatenate([y, dl.cos(y)], axis=0) @ w.T


@stays
def needed_in_another_shape(x, w):
    y = dl.sin(x @ w)
    return dl.concatenate([y, dl.cos(y)], axis=1) @ dl.concatenate([w, w], axis=1).T, y.reshape(-1) * 2


@stays
def only_half_of_it(x, w):
    y = x @ w
    return dl.concatenate([y[:, :3], dl.cos(y[:, 3:])], axis=1) @ w.T + y.sum()


@pytest.mark.parametrize("function", [twice, an_input, returned, needed_in_another_shape, only_half_of_it])
@pytest.mark.parametrize("kernels", KERNELS)
def test_what_is_needed_elsewhere_too_is_copied(function, kernels, rng):
    executor = compiled(function, normal(rng, 5, 4), normal(rng, 4, 6), kernels=kernels)
    assert any("concatenate" in name for name in names(executor))


@pytest.mark.parametrize("axis", [0, 1])
def test_threads_write_within_their_rows_of_a_whole(axis, rng):
    """The halves of the rows of a part are not the halves of what is put together along the rows."""

    def function(x, w):
        a, b = dl.sin(x @ w), dl.cos(x @ w)
        return dl.exp(dl.concatenate([a, b], axis=axis)) * 2

    executor = compiled(function, normal(rng, 200, 40), normal(rng, 40, 200), kernels="numpy", threads=2)
    assert ("concatenate" in names(executor)) is (axis == 0)


# --- taking over ------------------------------------------------------------------------------------


def memory_of(executor):
    return {id(array.base if array.base is not None else array) for array in executor.memory.arrays.values()}


def softmax_of_products(x, w):
    return dl.softmax(x @ w, axis=-1) @ w.T


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("kernels", KERNELS)
@pytest.mark.parametrize("rows", [3, 300])
def test_rows_are_computed_in_the_place_of_a_product(rows, kernels, threads, rng):
    x, w = normal(rng, rows, 30), normal(rng, 30, 500)
    executor = compiled(softmax_of_products, x, w, kernels=kernels, threads=threads)
    large = [buffer for buffer in executor.memory.buffers if buffer.nbytes >= rows * 500 * 4]
    assert len(large) == 1


def test_an_input_that_is_read_afterwards_keeps_its_place(rng):
    def function(x, w):
        y = x @ w
        z = dl.exp(y)
        return (z @ w.T) @ (z - y)

    compiled(function, normal(rng, 3, 3), normal(rng, 3, 3))


def test_states_and_inputs_keep_their_places(rng):
    state = dl.tensor(normal(rng, 4, 4))
    before, x = state.numpy().copy(), normal(rng, 4, 4)
    given = x.copy()
    step = dl.compile(lambda x: dl.exp(x * 2 + state), kernels="numpy")
    for _ in range(3):
        step(x)
    numpy.testing.assert_array_equal(state.numpy(), before)
    numpy.testing.assert_array_equal(x, given)


def test_only_one_result_takes_the_place_of_an_input(rng):
    def function(x, w):
        y = x @ w
        return (dl.sin(y) @ w.T) @ (dl.cos(y) @ w.T).T

    executor = compiled(function, normal(rng, 5, 4), normal(rng, 4, 6))
    program = executor.program
    assert isinstance(program, Program)
    (group,) = [step for step in program.steps if step.name == "sin cos"]
    first, second = (executor.memory.arrays[value] for value in group.outputs)
    assert not numpy.shares_memory(first, second)


def test_places_are_taken_over_again_and_again(rng):
    """Elementwise steps between sums of columns cannot be one group, and need one piece of memory."""

    def function(x, w):
        y = x @ w
        for _ in range(4):
            y = dl.tanh(y - y.sum(axis=0) * 0.01)
        return y @ w.T

    executor = compiled(function, normal(rng, 50, 30), normal(rng, 30, 40))
    large = [buffer for buffer in executor.memory.buffers if buffer.nbytes >= 50 * 40 * 4]
    assert len(large) == 1
