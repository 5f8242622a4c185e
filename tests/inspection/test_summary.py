import numpy
import pytest

import minidl as dl
from tests.inspection.networks import Tied, TwoInputs


def rows(summary):
    return {row.name or (row.title if row.depth else "whole"): row for row in summary.rows}


def test_a_summary_counts_what_each_layer_holds_and_does():
    network = Tied()
    summary = network.summary((4, 3, 1))
    by_name = rows(summary)
    decoder = "sigmoid(x @ encoder.1.weight.T + bias)"
    assert list(by_name) == ["whole", "encoder", "0", "1", "2", decoder, "dense.0"]
    assert by_name["1"].parameters == 12 * 6 + 6
    assert by_name["1"].shared
    assert by_name["whole"].parameters == 12
    assert not by_name["whole"].shared
    assert by_name["1"].outputs == "6"
    assert by_name["whole"].outputs == "4 x 3 x 1"
    assert by_name["dense.0"].title == "the same as encoder.1"
    assert summary.parameters == network.parameter_count() == sum(row.parameters for row in summary.rows)
    assert summary.parameter_bytes == 4 * summary.parameters
    product = 2 * 12 * 6
    assert by_name["1"].flops == product + 6
    assert by_name["2"].flops == 6
    assert by_name["whole"].flops == 0
    assert by_name[decoder].flops == product + 12 + 12
    assert by_name[decoder].outputs == "4 x 3 x 1"
    assert summary.flops == sum(row.flops for row in summary.rows)
    assert summary.activation_bytes == 4 * (6 + 6 + 6 + 12 + 12 + 12)


def test_a_summary_reads_as_a_table():
    lines = str(Tied().summary((4, 3, 1))).splitlines()
    assert lines[0].split() == ["layer", "output", "parameters", "kflop"]
    assert lines[4].split() == ["1:", "Dense(12,", "6)", "6", "78", "*", "0.150"]
    assert lines[-2].startswith("90 parameters, 360 bytes; for each observation 0.324 kflop forward and 216 ")
    assert lines[-1] == "* used in more than one place, counted once"


def test_without_inputs_nothing_runs():
    class Refuses(dl.Layer):
        def __init__(self):
            self.dense = dl.Dense(2, 3)

        def forward(self, x):
            raise AssertionError("ran")

    summary = Refuses().summary()
    assert summary.flops is None
    assert str(summary).splitlines()[-1] == "9 parameters, 36 bytes"


def test_shared_layers_are_counted_once_and_their_work_as_often_as_it_is_done():
    shared = dl.Dense(4, 4)
    summary = dl.Network([shared, dl.relu, shared, dl.Network([shared, dl.Dense(4, 1)])]).summary(4)
    by_name = rows(summary)
    assert by_name["2"].title == "the same as 0"
    assert summary.parameters == 20 + 5
    assert summary.flops == 3 * (32 + 4) + 4 + (8 + 1)
    assert [row.shared for row in summary.rows if row.parameters] == [True, False]


def test_operations_between_layers_stand_where_they_run():
    class Residual(dl.Layer):
        def __init__(self):
            self.spare, self.second, self.first = (
                dl.Tanh(),
                dl.Dense(4, 4),
                dl.Network([dl.Dense(4, 4), dl.tanh]),
            )

        def forward(self, x):
            return x + self.second(self.first(x) * 0.5)

    summary = Residual().summary(4)
    assert [(row.depth, row.name or row.title) for row in summary.rows[1:]] == [
        (1, "first"),
        (2, "0"),
        (2, "tanh(x)"),
        (1, "x * 0.5"),
        (1, "second"),
        (1, "x + y"),
        (1, "spare"),
    ]
    assert rows(summary)["spare"].outputs == "not used"
    assert sum(row.flops for row in summary.rows) == summary.flops


def test_operations_that_are_repeated_are_one_row():
    class Loop(dl.Layer):
        def __init__(self):
            self.cell = dl.Dense(3, 3)

        def forward(self, x):
            for _ in range(5):
                x = dl.tanh(self.cell(x))
            return x

    network = Loop()
    summary = network.summary(3)
    assert [row.title for row in summary.rows] == ["Loop()", "Dense(3, 3)", "tanh(x)"]
    assert [row.flops for row in summary.rows] == [0, 5 * (18 + 3), 5 * 3]


def test_several_inputs_arrays_and_unused_layers():
    network = TwoInputs()
    network.spare = dl.Dense(2, 2)
    summary = network.summary(3, numpy.zeros((7, 5), "float32"))
    assert rows(summary)["whole"].outputs == "2, 4"
    assert rows(summary)["spare"].outputs == "not used"


def test_a_summary_changes_nothing():
    network = dl.Network([dl.Dense(3, 3), dl.Dropout(0.5, seed=4), dl.Normalize((3,), "none")])
    network[0].training = False
    modes = [layer.training for layer in network]
    generator = network[1].generator.state_dict()
    before = network.state_dict()
    network.summary(3)
    network.plot(3)
    assert [layer.training for layer in network] == modes
    assert network[1].generator.state_dict() == generator
    for name, array in network.state_dict().items():
        numpy.testing.assert_array_equal(before[name], array)


def test_a_summary_needs_no_fitted_normalisation_and_fits_none():
    network = dl.Network([dl.Normalize((3,)), dl.Dense(3, 2)])
    assert network.summary(3).flops == 2 * 3 + 2 * 3 * 2 + 2
    assert not network[0].fitted
    network.plot(3)


def test_a_summary_between_backward_and_step():
    dense = dl.Dense(3, 2)
    dense(dl.ones((1, 3))).sum().backward()
    gradient = dense.weight.grad
    assert dense.summary(3).parameters == 8
    assert dense.weight.grad is gradient


def test_a_forward_may_read_values_and_keep_results():
    class Chooses(dl.Layer):
        last = None

        def forward(self, x):
            self.last = x * 2 if x.sum().item() > 0 else x
            return self.last

    layer = Chooses()
    assert layer.summary(4).flops == 4 + 4
    assert layer.last is None


def test_a_summary_inside_a_network_that_fails_changes_nothing():
    network = dl.Network([dl.Dropout(), dl.Dense(3, 2)])
    network[1](dl.ones((1, 3))).sum().backward()
    with pytest.raises(ValueError, match="takes inputs"):
        network.summary(5)
    assert network[0].training
    assert network[1].weight.grad is not None


def test_shapes_that_do_not_fit_say_so():
    with pytest.raises(ValueError, match=r"Dense\(3, 2\) takes inputs \(batch, \.\.\., 3\); got \(1, 4\)"):
        dl.Network([dl.Dense(3, 2)]).summary(4)
    with pytest.raises(TypeError, match="expected the shape of one observation"):
        dl.Network([dl.Dense(3, 2)]).summary("many")
