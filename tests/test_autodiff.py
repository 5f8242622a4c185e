import gc
import sys
import threading
import weakref

import numpy
import pytest

import minidl as dl
from minidl.mode import mode
from minidl.primitives.primitive import PRIMITIVES, Primitive


def leaf(values, dtype="float64"):
    return dl.tensor(values, dtype=dtype, requires_grad=True)


def test_repeated_use_and_views_add_up():
    x = leaf([[1.0, 2.0], [3.0, 4.0]])
    y = x.T
    (x * y + x[0] + y.reshape(4)[:2] * x.sum()).sum().backward()
    numpy.testing.assert_allclose(x.grad.numpy(), [[32, 16], [32, 16]])


def test_that_result_against_differences():
    from minidl.checks import check_gradients

    def function(x):
        y = x.T
        return x * y + x[0] + y.reshape(4)[:2] * x.sum()

    check_gradients(function, numpy.array([[1.0, 2.0], [3.0, 4.0]]), order=2)


def test_gradients_accumulate_over_several_backwards():
    x = leaf([1.0, 2.0])
    (x * 2).sum().backward()
    (x * 3).sum().backward()
    numpy.testing.assert_array_equal(x.grad.numpy(), [5, 5])


def test_backward_twice_says_what_happened():
    y = (leaf([1.0]) * 2).sum()
    y.backward()
    with pytest.raises(RuntimeError, match=r"been here before.*'sum'.*retain_graph=True"):
        y.backward()


def test_retain_graph_keeps_the_tape():
    x = leaf([1.0])
    y = (x * x).sum()
    y.backward(retain_graph=True)
    y.backward()
    assert x.grad.item() == 4


def test_shared_part_of_a_freed_tape_is_named():
    x = leaf([1.0])
    shared = x * 2
    (shared + 1).sum().backward()
    with pytest.raises(RuntimeError, match="'multiply' was freed"):
        (shared + 2).sum().backward()


def test_backward_needs_a_scalar_or_a_gradient():
    x = leaf([1.0, 2.0])
    with pytest.raises(RuntimeError, match=r"one element, got shape \(2,\)"):
        (x * 2).backward()
    (x * 2).backward(dl.tensor([1.0, 10.0], "float64"))
    numpy.testing.assert_array_equal(x.grad.numpy(), [2, 20])
    with pytest.raises(ValueError, match=r"shape \(3,\), its output \(2,\)"):
        (x * 2).backward(dl.ones(3))


def test_backward_from_a_constant_is_refused():
    with pytest.raises(RuntimeError, match="depends on nothing with requires_grad"):
        dl.ones(()).backward()
    with dl.no_grad():
        y = leaf([1.0]).sum()
    with pytest.raises(RuntimeError, match="no_grad"):
        y.backward()


def test_gradients_of_gradients():
    x = leaf(0.7)
    g = dl.sin(x)
    for expected in (numpy.cos, lambda v: -numpy.sin(v), lambda v: -numpy.cos(v), numpy.sin):
        g = dl.grad(g, x, create_graph=True)
        assert g.item() == pytest.approx(expected(0.7))
    assert x.grad is None


def test_grad_of_inner_tensors_and_of_what_does_not_matter():
    x, unused = leaf([1.0, 2.0]), leaf([[3.0]])
    y = x * x
    gradients = dl.grad((y * 3).sum(), [y, x, unused])
    numpy.testing.assert_array_equal(gradients[0].numpy(), [3, 3])
    numpy.testing.assert_array_equal(gradients[1].numpy(), [6, 12])
    numpy.testing.assert_array_equal(gradients[2].numpy(), [[0]])
    with pytest.raises(RuntimeError, match="Tensor 0 of xs does not require"):
        dl.grad(y.sum(), [dl.ones(2)])


def test_only_needed_gradients_are_computed():
    asked = []

    def rule_for(index):
        return lambda g, out, a, b: asked.append(index) or g

    plus = Primitive("plus_for_test", lambda xp, a, b, out=None: xp.add(a, b), (rule_for(0), rule_for(1)))
    try:
        data, weight = dl.ones(3), leaf([1.0, 1.0, 1.0], "float32")
        plus(data, weight).sum().backward()
        assert asked == [1]
        asked.clear()
        other = leaf([1.0, 1.0, 1.0], "float32")
        dl.grad(plus(weight, other).sum(), weight)
        assert asked == [0]
    finally:
        del PRIMITIVES["plus_for_test"]


def test_a_deep_chain_does_not_recurse():
    x = leaf(1.0)
    y = x
    for _ in range(10_000):
        y = y + 1
    assert sys.getrecursionlimit() < 10_000
    y.backward()
    assert x.grad.item() == 1
    z = leaf(1.0)
    for _ in range(10_000):
        z = z * 1.0
    del z  # freed without a walk, too


def test_memory_is_freed_while_backward_walks():
    alive = []
    peak = 0

    def forward(xp, x, out=None):
        return x + 1

    def rule(g, out, x):
        nonlocal peak
        peak = max(peak, sum(reference() is not None for reference in alive))
        return g

    step = Primitive("step_for_test", forward, (rule,))
    try:
        y = leaf(numpy.ones(10))
        for _ in range(20):
            y = step(y)
            alive.append(weakref.ref(y))
        y = y.sum()
        gc.disable()
        y.backward()
        assert sum(reference() is not None for reference in alive) == 0
        seen_at_the_end = peak
        assert seen_at_the_end == 20
    finally:
        gc.enable()
        del PRIMITIVES["step_for_test"]


def test_intermediate_results_are_freed_before_the_walk_ends():
    counts = []
    kept = []

    def rule(g, out, x):
        counts.append(sum(reference() is not None for reference in kept))
        return g

    step = Primitive("step_for_test", lambda xp, x, out=None: x + 1, (rule,))
    try:
        y = leaf(numpy.ones(10))
        for _ in range(10):
            y = step(y)
            kept.append(weakref.ref(y))
        total = y.sum()
        del y
        total.backward()
        assert counts == list(range(10, 0, -1))
    finally:
        del PRIMITIVES["step_for_test"]


def test_assigning_what_backward_still_needs_is_noticed():
    p = dl.Parameter([2.0])
    y = (p * p).sum()
    p.assign([3.0])
    with pytest.raises(RuntimeError, match=r"'multiply' used a Tensor of shape \(1,\) that was assigned"):
        y.backward()
    q = dl.Parameter([[2.0, 1.0]])
    y = (q.T * 3).sum()
    q.assign([[3.0, 1.0]])
    with pytest.raises(RuntimeError, match=r"'multiply' used a Tensor .* perhaps through a view"):
        y.backward()


def test_assigning_state_that_a_gradient_needs_is_noticed():
    """A Tensor without gradient, assigned after its use: no wrong gradient, and no error without need."""
    p, state = dl.Parameter([2.0, 1.0]), dl.tensor([5.0, 7.0])
    y = (p * state).sum()
    state.assign(state * 0)
    with pytest.raises(RuntimeError, match=r"'multiply' used a Tensor of shape \(2,\) that was assigned"):
        y.backward()
    state.assign([1.0, 2.0])
    y = ((p + state.reshape(2)) * 3 - state).sum()
    state.assign([0.0, 0.0])
    y.backward()
    assert p.grad.tolist() == [3.0, 3.0]
    y = (p * state + dl.where(state > 1, p, 2 * p)).sum()  # used before and after, by the last value
    y.backward()


VIEWS = {
    "detach": lambda x: x.detach(),
    "detach of a view": lambda x: x[0].detach(),
    "a view of a detached": lambda x: x.detach()[0],
    "reshape": lambda x: x.reshape(4),
    "slice": lambda x: x[:1],
    "T": lambda x: x.T,
    "broadcast_to": lambda x: dl.broadcast_to(x, (3, 2, 2)),
    "expand_dims": lambda x: dl.expand_dims(x, 0),
    "squeeze": lambda x: dl.squeeze(dl.expand_dims(x, 0)),
    "swapaxes": lambda x: dl.swapaxes(x, 0, 1),
    "split": lambda x: dl.split(x, 2)[0],
    "flip": lambda x: dl.flip(x, 0),
}


@pytest.mark.parametrize("kernels", [None, "numpy", "c"])
@pytest.mark.parametrize("view", VIEWS)
def test_assigning_through_a_view_or_beneath_one_is_noticed(view, kernels):
    """Whichever of the two is used and whichever is assigned: an error, and never a wrong gradient."""

    def step(beneath):
        alias = VIEWS[view](state)
        used, assigned = (alias, state) if beneath else (state, alias)
        y = (p.sum() * used).sum()
        assigned.assign(dl.zeros(assigned.shape))
        y.backward()

    p, state = dl.Parameter([2.0]), dl.tensor([[1.0, 2.0], [3.0, 4.0]])
    function = step if kernels is None else dl.compile(step, kernels=kernels)
    for beneath in (True, False):
        if not beneath and view == "broadcast_to":
            continue  # which cannot be written
        made_inside = kernels is not None and not beneath  # which a compiled function does not assign to
        message = "a Tensor made inside the compiled" if made_inside else "afterwards, perhaps through a view"
        with pytest.raises(RuntimeError, match=message):
            function(beneath)
        assert p.grad is None


def test_a_detached_parameter_that_an_optimizer_has_changed_is_noticed():
    u, w = dl.Parameter([2.0, 2.0]), dl.Parameter([1.0, 3.0])
    y = (u * w.detach()).sum()
    (w * 1.0).sum().backward()
    dl.SGD([w], 0.1).step()
    with pytest.raises(RuntimeError, match="assigned a new value"):
        y.backward()


def test_no_grad_nests_and_decorates():
    x = leaf([1.0])

    @dl.no_grad()
    def double(v):
        return v * 2

    with dl.no_grad():
        with dl.no_grad():
            assert not (x * 2).requires_grad
        assert not (x * 2).requires_grad
    assert not double(x).requires_grad
    assert (x * 2).requires_grad
    with pytest.raises(ZeroDivisionError), dl.no_grad():
        raise ZeroDivisionError
    assert (x * 2).requires_grad


def test_modes_belong_to_their_thread():
    seen = []
    with dl.no_grad():
        thread = threading.Thread(target=lambda: seen.append(mode.grad_enabled))
        thread.start()
        thread.join()
    assert seen == [True]


def test_a_decorated_function_may_run_in_several_threads_at_once():
    inside, leave = threading.Event(), threading.Event()
    modes = []

    @dl.no_grad()
    def slow():
        inside.set()
        leave.wait(5)
        modes.append(mode.grad_enabled)

    def outer():
        slow()
        modes.append(mode.grad_enabled)

    first = threading.Thread(target=outer)
    first.start()
    inside.wait(5)
    second = threading.Thread(target=outer)
    second.start()
    leave.set()
    first.join()
    second.join()
    assert sorted(modes) == [False, False, True, True]


def test_mode_is_restored_when_a_rule_fails():
    def rule(g, out, x):
        raise ZeroDivisionError

    broken = Primitive("broken_for_test", lambda xp, x, out=None: x + 1, (rule,))
    try:
        with pytest.raises(ZeroDivisionError):
            broken(leaf([1.0])).sum().backward()
        assert mode.grad_enabled
    finally:
        del PRIMITIVES["broken_for_test"]


def test_gradients_have_the_dtype_and_shape_of_their_leaf():
    x = leaf([[1.0], [2.0]], "float32")
    y = leaf(numpy.ones((1, 3)), "float64")
    (x * y + x.astype("float64")).sum().backward()
    assert (x.grad.dtype, x.grad.shape) == (numpy.float32, (2, 1))
    assert (y.grad.dtype, y.grad.shape) == (numpy.float64, (1, 3))
    numpy.testing.assert_array_equal(x.grad.numpy(), [[6], [6]])


def test_detach_and_integers_stop_gradients():
    x = leaf([1.5, 2.5])
    y = x.detach() * 2 + x
    y.sum().backward()
    numpy.testing.assert_array_equal(x.grad.numpy(), [1, 1])
    assert not x.astype("int64").requires_grad
    assert not (x > 0).requires_grad


def test_equal_maxima_share_the_gradient():
    x = leaf([1.0, 3.0, 3.0])
    x.max().backward()
    numpy.testing.assert_array_equal(x.grad.numpy(), [0, 0.5, 0.5])
    y = leaf([1.0, 3.0])
    dl.maximum(y, dl.tensor([1.0, 2.0], "float64")).sum().backward()
    numpy.testing.assert_array_equal(y.grad.numpy(), [0.5, 1])


def test_gathered_positions_add_up():
    x = leaf([1.0, 2.0, 3.0])
    (x[[0, 0, 2]] * dl.tensor([1.0, 10.0, 100.0], "float64")).sum().backward()
    numpy.testing.assert_array_equal(x.grad.numpy(), [11, 0, 100])
