import pytest

import minidl as dl
from minidl.inspection.plot import _lanes, _place, nodes_of
from minidl.inspection.trace import trace
from tests.inspection.networks import Tied, TwoInputs


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
def test_plots_are_written(ending, tmp_path):
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


def test_bare_layers_and_functions_have_plots():
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


def test_a_plot_needs_a_shape():
    with pytest.raises(TypeError, match="needs the shape of one observation"):
        dl.Network([dl.Dense(3, 2)]).plot()
