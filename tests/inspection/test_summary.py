"""Summaries and pictures of networks, and the trace that both are made from."""

import numpy
import pytest

import minidl as dl
from minidl.inspection.plot import _lanes, _place, nodes_of
from minidl.inspection.trace import trace


class Tied(dl.Layer):
    def __init__(self):
        self.encoder = dl.Network([dl.Flatten(), dl.Dense(12, 6, seed=0), dl.ReLU()])
        self.dense = [self.encoder[1]]
        self.bias = dl.Parameter(dl.zeros(12))

    def forward(self, x):
        return dl.sigmoid(self.encoder(x) @ self.dense[0].weight.T + self.bias).reshape(x.shape)


class TwoInputs(dl.Layer):
    def __init__(self):
        self.left, self.right, self.last = dl.Dense(3, 4), dl.Network([dl.Dense(5, 4)]), dl.Dense(4, 2)

    def forward(self, x, z):
        h, g = self.left(x), self.right(z)
        return self.last(h + g) + 0.5 * self.last(h), g


def rows(summary):
    return {row.name or (row.title if row.depth else "whole"): row for row in summary.rows}


# --- summary --------------------------------------------------------------------------------------------


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


FORMULAS = {
    "(x - 1) * (x + 2)": lambda x, w: (x - 1) * (x + 2),
    "x - (x - 1)": lambda x, w: x - (x - 1),
    "x - 1 - x": lambda x, w: x - 1 - x,
    "x / (x * 2)": lambda x, w: x / (x * 2),
    "exp(-x)": lambda x, w: dl.exp(-x),
    "x @ w": lambda x, w: x @ w,
    "softplus(x) + sigmoid(x)": lambda x, w: dl.softplus(x) + dl.sigmoid(x),
    "exp, multiply": lambda x, w: dl.exp(x) ** 2,
    "sum(x)": lambda x, w: x.sum(axis=1, keepdims=True),
}


@pytest.mark.parametrize(("text", "function"), FORMULAS.items())
def test_operations_read_as_a_formula(text, function):
    class Computes(dl.Layer):
        def __init__(self):
            self.w = dl.Parameter(numpy.eye(3))

        def forward(self, x):
            return function(x, self.w)

    traced = trace(Computes(), (3,))
    assert [traced.formula(part) for part in traced.root.parts()] == [text]


def test_long_formulas_are_the_names_of_their_operations():
    class Computes(dl.Layer):
        def forward(self, x):
            for _ in range(4):
                x = dl.exp(dl.tanh(x * 0.25))
            return x

    traced = trace(Computes(), (3,))
    assert traced.formula(traced.root.parts()[0]) == "multiply, tanh, exp, multiply, 8 more"


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
    with pytest.raises(TypeError, match="needs the shape of one observation"):
        dl.Network([dl.Dense(3, 2)]).plot()


# --- picture --------------------------------------------------------------------------------------------


def labels(figure):
    return [text.get_text() for text in figure.axes[0].texts]


def test_the_boxes_and_what_flows_between_them():
    nodes, _ = nodes_of(trace(Tied(), ((4, 3, 1),)))
    decoder = "sigmoid(x @ encoder.1.weight.T + bias)"
    assert [node.label for node in nodes] == ["Flatten()", "Dense(12, 6)", "ReLU()", decoder]
    assert [list(node.sources) for node in nodes] == [[-1], [0], [1], [2]]
    assert nodes[1].parameters == {"encoder.1.weight": "encoder.1.weight", "encoder.1.bias": "encoder.1.bias"}
    assert nodes[3].parameters == {"encoder.1.weight": "encoder.1.weight.T", "bias": "bias"}
    assert [[call.name for call in node.path] for node in nodes] == [["", "encoder"]] * 3 + [[""]]


def test_what_passes_some_boxes_by():
    nodes, _ = nodes_of(trace(TwoInputs(), (3, 5)))
    assert [node.label for node in nodes] == [
        "Dense(3, 4)",
        "Dense(5, 4)",
        "x + y",
        "Dense(4, 2)",
        "Dense(4, 2)",
        "x + 0.5 * y",
    ]
    assert [sorted(node.sources) for node in nodes] == [[-1], [-1], [0, 1], [2], [0], [3, 4]]


def test_lines_between_shared_weights_lie_inside_each_other():
    class Mirrored(dl.Layer):
        def __init__(self):
            self.layers = [dl.Dense(4, 4) for _ in range(9)]

        def forward(self, x):
            for layer in self.layers:
                x = layer(x)
            for layer in reversed(self.layers):
                x = x @ layer.weight.T
            return x

    def lanes(network):
        nodes, _ = nodes_of(trace(network, (4,)))
        _place(nodes)
        return {name: lane for name, lane in _lanes(nodes).items() if "weight" in name}

    assert lanes(Mirrored()) == {f"layers.{i}.weight": 8 - i for i in range(9)}
    one_after_another = dl.Network([layer for _ in range(4) for layer in [dl.Dense(4, 4, bias=False)] * 2])
    assert set(lanes(one_after_another).values()) == {0}


@pytest.mark.parametrize("ending", ["png", "svg", "pdf"])
def test_pictures_are_written(ending, tmp_path):
    path = tmp_path / f"network.{ending}"
    figure = Tied().plot((4, 3, 1), path=path)
    start = {"png": b"\x89PNG", "svg": b"<?xml", "pdf": b"%PDF"}[ending]
    assert path.read_bytes().startswith(start)
    shown = labels(figure)
    for text in (
        "input  4 x 3 x 1",
        "encoder: Network",
        "encoder.1.weight.T",
        "joined by a dashed line: the same",
    ):
        assert any(label.startswith(text) for label in shown), text


def test_layers_that_pass_their_input_on_are_on_the_way():
    network = dl.Network([dl.Dense(2, 2), dl.Dropout(0.5), dl.Network([dl.Dropout(0.1)]), dl.Tanh()])
    nodes, _ = nodes_of(trace(network, (2,)))
    assert [list(node.sources) for node in nodes] == [[-1], [0], [1], [2]]


def test_nothing_is_joined_where_nothing_is_shared():
    figure = dl.Network([dl.Dense(2, 2), dl.Network([dl.Network([dl.Dense(2, 1)])])]).plot(2)
    assert not any("dashed" in label for label in labels(figure))


def test_bare_layers_and_functions_have_pictures():
    assert "Dense(3, 2)" not in labels(dl.Dense(3, 2).plot(3))  # it is the frame; inside is what it computes
    assert "x @ weight + bias" in labels(dl.Dense(3, 2).plot(3))
    assert "tanh(x)" in labels(dl.Network([dl.tanh]).plot(3))
    assert "input  3" in labels(dl.Network([]).plot(3))


def test_arrows_go_around_boxes_that_they_pass_by(tmp_path):
    figure = TwoInputs().plot(3, 5, path=tmp_path / "two.png")
    shown = labels(figure)
    assert "input  3 and 5" in shown
    assert "output  2 and 4" in shown
    assert (tmp_path / "two.png").stat().st_size > 10_000
