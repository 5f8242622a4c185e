"""check_layer: the rows of the report, the inputs it takes, and what it leaves alone. Mistakes it finds
are in test_layer_tests.py."""

import copy
import inspect
import random
import subprocess
import sys
import threading
import time

import numpy
import pytest
import threadpoolctl

import minidl as dl
from minidl.checks import LayerReport, assert_layer, check_layer
from minidl.primitives.primitive import Primitive
from tests.checks.mistakes import Broken, named, outcomes, parameter
from tests.checks.random_layers import Normalized, random_layer
from tests.networks import TiedAutoencoder

ROWS = [
    "methods have valid signatures",
    "one observation",
    "several observations",
    "output sizes",
    "output types",
    "inputs are left alone",
    "global random numbers are left alone",
    "no_grad() changes no output",
    "training changes state only",
    "state stays finite",
    "outputs are finite",
    "evaluation changes no state",
    "evaluation is repeatable",
    "observations are independent in evaluation",
    "nothing grows from call to call",
    "every Parameter is found",
    "gradients exist",
    "float32",
    "float64",
    "gradients agree with differences",
    "second-order gradients agree with differences",
    "its own primitives write to out=",
    "save and load",
    "what training changes is saved",
    "float32 agrees with float64",
    "GPU",
    "nested in networks",
    "used twice",
    "compiled replay equals eager",
]
NEEDS_A_GPU = pytest.mark.skipif(dl.devices.gpu_problem() is not None, reason=str(dl.devices.gpu_problem()))


# --- the report -----------------------------------------------------------------------------------


def test_a_right_layer_passes_every_test():
    report = check_layer(dl.Dense(4, 3, seed=0), (4,))
    assert isinstance(report, LayerReport)
    assert [row.test for row in report.rows] == ROWS
    skipped = {row.test for row in report.rows if row.outcome == "skipped"}
    assert skipped - {"GPU"} == {
        "state stays finite",
        "second-order gradients agree with differences",
        "its own primitives write to out=",
    }
    assert report.passed
    assert report.compared > 300
    assert report.failures == []
    report.raise_if_failed()
    assert_layer(dl.Dense(4, 3, seed=0), (4,))


def test_a_layer_that_does_not_compute_is_not_tested_further():
    broken = Broken(lambda self, x: x @ self.gain, gain=parameter(5, 2))
    report = check_layer(broken, (4,))
    assert [row.test for row in report.failures] == ["one observation"]
    assert report.rows[2].why == "because of 'one observation'"
    assert {row.why for row in report.rows[3:]} == {"the layer does not compute"}


def test_only_layers_are_taken():
    with pytest.raises(TypeError, match="check_layer takes a Layer; got function"):
        check_layer(outcomes, (3,))


# --- kinds of layers ------------------------------------------------------------------------------


def test_what_does_not_apply_is_skipped_with_a_reason():
    rows = {row.test: row for row in check_layer(dl.Flatten(), (2, 3)).rows}
    assert (rows["save and load"].outcome, rows["save and load"].why) == ("skipped", "nothing to save")
    assert rows["used twice"].why == "no Parameters to share"
    if dl.devices.gpu_problem() is not None:
        assert rows["GPU"].why.startswith("no GPU: ")


def test_a_layer_of_integers_has_no_gradients():
    one_hot = Broken(lambda self, x: (x.reshape(-1, 1) == dl.arange(4, device=x.device)).astype("int64"))
    report = outcomes(one_hot, numpy.array([0, 3, 1]))
    assert report["gradients exist"] == report["gradients agree with differences"] == "skipped"
    assert "failed" not in report.values()


def test_a_layer_that_is_all_kinks_is_not_called_right():
    rows = {row.test: row for row in check_layer(dl.ReLU(), numpy.zeros((4, 3))).rows}
    row = rows["gradients agree with differences"]
    assert row.outcome == "failed"
    assert "every one of the 9 elements" in row.why
    assert "use other values" in row.why


def test_python_that_reads_values_is_not_compiled_and_not_failed():
    branching = Broken(lambda self, x: x * 2 if x.sum().item() > 1e9 else x * self.gain, gain=parameter(4))
    rows = {row.test: row for row in check_layer(branching, (4,)).rows}
    assert rows["compiled replay equals eager"].outcome == "skipped"
    assert "cannot be compiled" in rows["compiled replay equals eager"].why


def test_tied_and_nested_networks():
    assert_layer(TiedAutoencoder(6, 5, 3), (6,))
    assert_layer(dl.Network([TiedAutoencoder(4, 3), Normalized(4), dl.Dropout(0.3, seed=0)]), (4,))


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(20))
def test_no_false_alarm_for_100_correct_random_layers(seed):
    for number in range(100):
        assert_layer(*random_layer((seed, number)), seed=seed)


# --- options --------------------------------------------------------------------------------------


def test_rows_are_skipped_with_a_reason():
    layer = Broken(lambda self, x: x * self.gain.detach(), gain=parameter(4))
    report = check_layer(layer, (4,), skip={"gradients": "the gain is fixed on purpose"})
    rows = {row.test: row for row in report.rows}
    assert report.passed
    for title in ("gradients exist", "gradients agree with differences"):
        assert (rows[title].outcome, rows[title].why) == ("skipped", "as asked: the gain is fixed on purpose")


def test_a_skip_needs_a_row_and_a_reason():
    with pytest.raises(ValueError, match="no row 'gradient agreement' to skip; its rows are 'methods"):
        check_layer(dl.ReLU(), (3,), skip={"gradient agreement": "because"})
    with pytest.raises(ValueError, match="needs a reason"):
        check_layer(dl.ReLU(), (3,), skip={"gradients agree": ""})


def test_second_derivatives_on_request():
    second = "second-order gradients agree with differences"
    assert outcomes(dl.Dense(3, 2, seed=0), (3,))[second] == "skipped"
    assert outcomes(dl.Dense(3, 2, seed=0), (3,), order=2)[second] == "passed"
    with pytest.raises(ValueError, match="order must be 1 or 2, got 3"):
        check_layer(dl.ReLU(), (3,), order=3)


def test_an_attribute_that_hides_a_method_is_named():
    layer = Broken(lambda self, x: x * self.gain, gain=parameter(4))
    layer.parameters = [layer.gain]
    report = check_layer(layer, (4,))
    assert [row.test for row in report.failures] == ["methods have valid signatures"]
    assert "self.parameters = ... in Broken hides the method parameters()" in str(report)


def test_a_consequence_names_its_cause():
    source = numpy.random.RandomState(0)

    def forward(self, x):
        return x * self.gain + numpy.float32(source.normal())

    report = check_layer(Broken(forward, gain=parameter(4)), (4,))
    assert [row.test for row in report.failures] == ["evaluation is repeatable"]
    consequences = [row for row in report.rows if row.cause]
    assert consequences
    assert {row.why for row in consequences} == {"because of 'evaluation is repeatable'"}


@pytest.mark.slow
def test_the_tied_autoencoder_takes_at_most_3_seconds():
    """Processor time of one thread, so that other work beside it does not count."""
    check_layer(dl.Dense(3, 2, seed=0), (3,))  # imports what is imported when it is used
    layer = TiedAutoencoder(784, 784, 392, 196)
    with threadpoolctl.threadpool_limits(1):
        started = time.process_time()
        assert_layer(layer, (784,))
        assert time.process_time() - started < 3


# --- everything is left as it was -----------------------------------------------------------------


def test_the_layer_is_left_as_it_was():
    layer = dl.Network([dl.Dense(4, 3, seed=0), Normalized(3), dl.Dropout(0.5, seed=1)])
    layer[0].weight.grad = dl.ones((4, 3))
    layer[1].eval()
    twin = copy.deepcopy(layer)
    arrays = {name: x.data for name, x in layer.named_tensors()}
    gradient = layer[0].weight.grad
    assert_layer(layer, (4,))
    for name, x in layer.named_tensors():
        assert x.data is arrays[name]
        numpy.testing.assert_array_equal(x.numpy(), twin.state_dict()[name])
    assert layer[0].weight.grad is gradient
    assert [part.training for part in (layer, *layer)] == [True, True, False, True]
    assert layer[2].generator.state_dict() == twin[2].generator.state_dict()
    assert vars(layer[2]).keys() == vars(twin[2]).keys()


def test_global_random_numbers_are_left_as_they_were():
    random.seed(1)
    numpy.random.seed(1)
    before = random.getstate(), numpy.random.get_state()[1].tolist()
    check_layer(Broken(lambda self, x: x * numpy.float32(numpy.random.rand() + random.random())), (4,))
    assert (random.getstate(), numpy.random.get_state()[1].tolist()) == before


# --- GPU ------------------------------------------------------------------------------------------


def test_on_a_stand_in_for_the_gpu(strict_gpu):
    layer = dl.Network([dl.Dense(4, 3, seed=0), dl.Tanh(), dl.Dropout(0.5, seed=1)])
    report = outcomes(layer, (4,))
    assert report["GPU"] == "passed"
    assert "failed" not in report.values()
    assert layer[0].weight.device == "cpu"


def test_a_layer_that_lives_on_the_stand_in(strict_gpu):
    report = outcomes(dl.Dense(4, 3, seed=0).to("gpu"), (4,))
    assert "failed" not in report.values()


def test_state_that_training_changes_is_no_difference_to_the_cpu(strict_gpu):
    report = outcomes(Normalized(4), (4,))
    assert report["GPU"] == "passed"
    assert "failed" not in report.values()


def test_computing_on_the_host_is_caught_on_the_stand_in(strict_gpu):
    on_host = Broken(
        lambda self, x: dl.tensor(numpy.sin(dl.devices.to_numpy(x.data))) * self.gain, gain=parameter(4)
    )
    report = outcomes(on_host, (4,))
    assert report["GPU"] == "failed"


def test_other_values_on_the_stand_in_are_caught(strict_gpu):
    other = Broken(lambda self, x: x * self.gain * (1 if x.device == "cpu" else 2), gain=parameter(4))
    rows = {row.test: row for row in check_layer(other, (4,)).rows}
    assert rows["GPU"].outcome == "failed"
    assert rows["GPU"].why.startswith("output 0 differs from the CPU's by")


def test_a_gradient_on_another_device_is_caught_on_the_stand_in(strict_gpu):
    shift = Primitive(
        named("shift"),
        lambda xp, x, b, out=None: xp.add(x, b, out=out),
        gradients=(lambda g, out, x, b: g, lambda g, out, x, b: dl.ones(b.shape, b.dtype)),
    )
    why = {
        row.test: row.why
        for row in check_layer(Broken(lambda self, x: shift(x, self.b), b=parameter(4)), (4,)).rows
    }
    assert why["GPU"] == "b is float32 (4,) on gpu:0, its gradient float32 (4,) on cpu"


def test_results_on_another_device_are_caught_on_the_stand_in(strict_gpu):
    moving = Broken(lambda self, x: (x * self.gain).detach().to("cpu"), gain=parameter(4))
    why = {row.test: row.why for row in check_layer(moving, (4,)).rows}
    assert why["GPU"] == "output 0 is on cpu, the inputs on gpu:0: forward moves data"


def test_a_layer_that_cannot_be_copied():
    layer = dl.Dense(4, 3, seed=0)
    layer.lock = threading.Lock()
    assert_layer(layer, (4,))


@pytest.mark.gpu
@NEEDS_A_GPU
def test_on_the_gpu():
    assert (
        outcomes(dl.Network([dl.Dense(4, 3, seed=0), dl.ReLU(), dl.Dropout(0.5, seed=1)]), (4,))["GPU"]
        == "passed"
    )
    assert_layer(dl.Dense(4, 3, seed=0).to("gpu"), (4,))


# --- in minidl ------------------------------------------------------------------------------------


def test_the_checks_are_imported_when_they_are_used():
    code = (
        "import sys, minidl; assert 'minidl.checks' not in sys.modules; "
        "minidl.check_layer; minidl.check_gradients; assert 'minidl.checks' in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    assert inspect.unwrap(dl.check_layer) is check_layer
    with pytest.raises(AttributeError, match=r"minidl.*no attribute 'check_everything'"):
        getattr(dl, "check_" + "everything")
