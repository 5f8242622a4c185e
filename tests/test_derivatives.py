"""Derivatives of functions, against what calculus says; nested, under no_grad, and compiled."""

import numpy
import pytest

import minidl as dl

A = numpy.array([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])
X = numpy.array([0.5, -1.5])


def cubes(x):
    return (dl.tensor(A) @ (x * x * x)).sum()


def test_value_and_grad():
    value, gradient = dl.value_and_grad(cubes)(X)
    assert value.item() == pytest.approx((A @ X**3).sum())
    numpy.testing.assert_allclose(gradient.numpy(), 3 * A.sum(axis=0) * X**2)


def test_jacobian():
    result = dl.jacobian(lambda x: dl.tensor(A) @ dl.sin(x))(X)
    numpy.testing.assert_allclose(result.numpy(), A * numpy.cos(X))
    of_matrix = dl.jacobian(lambda x: x.T)(A)
    assert of_matrix.shape == (2, 3, 3, 2)
    assert of_matrix.numpy().sum() == 6


def test_hessian():
    expected = numpy.diag(6 * A.sum(axis=0) * X)
    numpy.testing.assert_allclose(dl.hessian(cubes)(X).numpy(), expected)
    v = numpy.array([2.0, 3.0])
    numpy.testing.assert_allclose(dl.hessian_vector_product(cubes)(v, X).numpy(), expected @ v)
    assert not dl.hessian(lambda x: x.sum())(X).numpy().any()
    assert not dl.hessian_vector_product(lambda x: x.sum())(v, X).numpy().any()


@pytest.mark.parametrize("requires_grad", [False, True])
@pytest.mark.parametrize("kernels", [None, "numpy"])
def test_only_the_argument_itself_is_differentiated_by(requires_grad, kernels):
    """The same Tensor as another argument, as the vector, or seen from outside is a constant."""
    compiled = dl.compile(kernels=kernels) if kernels else lambda function: function
    x = dl.tensor(X, requires_grad=requires_grad)

    def product(a, b):
        return (a * b * b).sum()

    value, gradient = compiled(lambda x: dl.value_and_grad(product)(x, x))(x)
    assert value.item() == pytest.approx((X**3).sum())
    numpy.testing.assert_allclose(gradient.numpy(), X**2)
    numpy.testing.assert_allclose(dl.value_and_grad(product, position=1)(x, x)[1].numpy(), 2 * X**2)
    outside = compiled(lambda x: dl.jacobian(lambda a: a * x)(x))(x)
    numpy.testing.assert_allclose(outside.numpy(), numpy.diag(X))
    numpy.testing.assert_allclose(dl.hessian(lambda a: (a * a * x).sum())(x).numpy(), numpy.diag(2 * X))
    along = compiled(lambda x: dl.hessian_vector_product(cubes)(x, x))(x)
    numpy.testing.assert_allclose(along.numpy(), 6 * A.sum(axis=0) * X**2)


def test_the_product_with_a_vector_is_differentiated_by_the_vector_and_the_argument():
    x, v = dl.tensor(X, requires_grad=True), dl.tensor([2.0, 3.0], dtype="float64", requires_grad=True)
    product = dl.hessian_vector_product(cubes)(v, x)
    by_x, by_v = dl.grad(product.sum(), [x, v])
    numpy.testing.assert_allclose(by_v.numpy(), 6 * A.sum(axis=0) * X)
    numpy.testing.assert_allclose(by_x.numpy(), 6 * A.sum(axis=0) * v.numpy())
    numpy.testing.assert_allclose(dl.hessian_vector_product(cubes)([2, 3], x).numpy(), product.numpy())


def test_another_argument_may_be_chosen():
    function = lambda a, x, scale=1.0: scale * (a @ x)
    numpy.testing.assert_array_equal(
        dl.jacobian(function, position=1)(dl.tensor(A), X, scale=2.0).numpy(), 2 * A
    )
    gradient = dl.value_and_grad(lambda a, x: function(a, x).sum())(dl.tensor(A), dl.tensor(X))[1]
    numpy.testing.assert_array_equal(gradient.numpy(), numpy.tile(X, (3, 1)))


def test_they_nest():
    third = dl.jacobian(dl.jacobian(dl.jacobian(lambda x: x**4)))(dl.tensor(2.0))
    assert third.item() == 48


def test_they_work_under_no_grad_and_leave_it():
    with dl.no_grad():
        assert dl.jacobian(lambda x: x * x)(dl.tensor(3.0)).item() == 6
        assert not (dl.Parameter([1.0]) * 2).requires_grad


def test_compiled_they_are_read_anew_at_each_call():
    step = dl.compile(lambda x: dl.hessian(cubes)(x))
    for x in (X, 2 * X):
        numpy.testing.assert_allclose(step(x).numpy(), numpy.diag(6 * A.sum(axis=0) * x))


def test_gradients_flow_on_into_parameters():
    w = dl.Parameter([2.0])
    dl.jacobian(lambda x: w * x * x)(dl.tensor([3.0])).sum().backward()
    assert w.grad.item() == 6


def test_a_result_that_does_not_depend_on_it_has_the_derivative_0():
    assert dl.jacobian(lambda x: dl.ones(2))(X).numpy().tolist() == [[0, 0], [0, 0]]
