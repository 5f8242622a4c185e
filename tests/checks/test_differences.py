import numpy
import pytest

import minidl as dl
from minidl.checks import check_gradients
from minidl.primitives.primitive import elementwise
from tests.checks.mistakes import doubled_in_backward, message_of, named


def test_small_errors_are_found(rng):
    close = elementwise(
        named("copy"),
        lambda xp, x, out=None: xp.multiply(x, 1, out=out),
        gradients=(lambda g, out, x: 1.0001 * g,),
    )
    assert "is 1.0001 times" in message_of(close, rng.normal(size=3))


def test_errors_of_small_gradients_are_found(rng):
    double, x = doubled_in_backward(), rng.normal(size=(3, 4))
    assert "2 times the right gradient" in message_of(lambda x: double(x).sum() * 1e-10, x)
    check_gradients(lambda x: dl.sin(x).sum() * 1e-10, x, order=2)


@pytest.mark.parametrize("function", [dl.relu, lambda x: dl.relu(-x) * 3, lambda x: dl.clip(x, 0.0, 1.0)])
def test_kinks_are_skipped_and_said(function):
    report = check_gradients(function, [-0.5, 0.0, 0.5, 0.0])
    assert report.kinks == 2
    assert report.checked == 2
    assert "input 0: 2 of 4 elements skipped" in str(report)


def test_equal_maxima_are_kinks():
    assert check_gradients(lambda x: x.max(), [1.0, 3.0, 3.0, 3.0]).kinks == 3


def test_nothing_compared_is_an_error():
    message = message_of(dl.relu, numpy.zeros((2, 2)))
    assert "every one of the 4 elements is at a point without a derivative" in message
    assert "use other values" in message


def test_the_end_of_a_domain_is_a_kink():
    root = elementwise(
        named("root"),
        lambda xp, x, out=None: xp.sqrt(x, out=out),
        gradients=(lambda g, out, x: g * dl.sign(x) / 2,),
    )
    assert check_gradients(root, [1.0, 0.0]).kinks == 1


def test_near_a_kink_the_gradient_of_the_own_side_is_right():
    assert check_gradients(dl.relu, [1e-6, -1e-6, 3e-7, 1e-3]).kinks == 0


def test_several_kinks_at_once():
    """Moving to either side switches on another unit: no side has the gradient that backward gives."""
    report = check_gradients(lambda x: dl.relu(x) + dl.relu(-2 * x) + x, [0.0, 1.0])
    assert report.kinks == 1


def test_a_kink_hides_no_error_beside_it():
    double = doubled_in_backward()
    assert "2 of 3 gradients are wrong" in message_of(lambda x: dl.relu(double(x)), [0.0, 1.0, 2.0])


def test_large_tensors_are_sampled_by_default(rng):
    report = check_gradients(lambda x: x * x, rng.normal(size=(40, 50)))
    assert (report.comparisons[0].count, report.comparisons[0].unit) == (3, "directions")
    report = check_gradients(lambda x: x * x, rng.normal(size=(40, 50)), sample=2000)
    assert (report.comparisons[0].count, report.comparisons[0].unit) == (2000, "elements")


def test_one_wrong_element_among_many_is_found_and_named(rng):
    mask = numpy.zeros((60, 70))
    mask[17, 23] = 1
    double = doubled_in_backward()
    x = rng.normal(size=(60, 70))
    message = message_of(lambda x: dl.sin(x) * (1 - mask) + dl.sin(double(x)) * mask, x)
    assert "at (17, 23), backward gives" in message
    assert "2 times the right gradient" in message


# --- parts of outputs, kinks, ill-conditioning ----------------------------------------------------


def test_a_gradient_at_a_kink_lies_between_its_slopes():
    def rectify(at_zero):
        return elementwise(
            named("rectify"),
            lambda xp, x, out=None: xp.maximum(x, 0, out=out),
            gradients=(lambda g, out, x: g * ((x > 0) + at_zero * (x == 0)),),
        )

    for right in (0.0, 0.3, 1.0):
        assert check_gradients(rectify(right), [-0.5, 0.0, 0.5]).kinks == 1
    message = message_of(rectify(5.0), [-0.5, 0.0, 0.5])
    assert "not between the slopes of its two sides" in message


def test_a_composition_of_right_operations_is_not_blamed_at_a_kink():
    """The gradient at 0 is 0 + 0, though the slopes are 1 and 0.1: every operation does what it says."""
    assert check_gradients(lambda x: dl.relu(x) - 0.1 * dl.relu(-x), [0.0, 1.0]).kinks == 1


@pytest.mark.parametrize("large", [1e7, 1e9, 1e12])
def test_a_large_output_hides_no_small_one(large):
    double = doubled_in_backward()
    assert "2 times" in message_of(lambda x: (double(x), x * large), [0.5, 1.0, 2.0])
    assert "2 times" in message_of(lambda x: dl.concatenate([double(x), x + large]), [0.5, 1.0, 2.0])
    assert "2 times" in message_of(lambda x: dl.concatenate([double(x) * 1e-9, x]), [0.5, 1.0, 2.0])


def test_infinite_numbers_are_left_out_and_hide_no_error():
    double, mask = doubled_in_backward(), numpy.array([True, False, True])
    assert "2 times" in message_of(lambda x: dl.where(mask, double(x), -numpy.inf), [0.5, 1.0, 2.0])
    check_gradients(lambda x: dl.where(mask, dl.sin(x), -numpy.inf), [0.5, 1.0, 2.0])
    assert "none of its 3 numbers is finite" in message_of(lambda x: x + numpy.inf, [0.5, 1.0, 2.0])


@pytest.mark.parametrize(
    ("function", "at"),
    [
        (lambda x: 1 / x, 1e-5),
        (lambda x: dl.sin(1e5 * x), 0.3),
        (lambda x: (x + 1e6) - 1e6, 0.3),
        (lambda x: dl.exp(30 * x), 1.0),
        (lambda x: x**3, 0.0),
        (lambda x: dl.log(x), 1e-6),
    ],
)
def test_steep_curved_and_rounded_functions_are_right(function, at):
    assert check_gradients(function, [at, 2 * at]).checked == 2


def test_what_cannot_be_told_is_counted_as_such():
    report = check_gradients(lambda x: dl.concatenate([(x[:1] + 1e11) - 1e11, x[1:]]), [0.3, 1.0])
    assert (report.checked, report.unclear) == (1, 1)
