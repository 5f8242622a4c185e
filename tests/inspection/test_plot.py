import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

import minidl as dl
from minidl.inspection.plot import nested_lanes, nodes_of, place
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
    assert [sorted(node.sources) for node in nodes] == [[-1], [-2], [0, 1], [2], [0], [3, 4]]


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
        place(nodes)
        tops = {}
        for node in nodes:
            for name in node.parameters:
                tops.setdefault(name, []).append(node.top)
        spans = {name: (ys[0], ys[-1]) for name, ys in tops.items() if "weight" in name}
        return nested_lanes(spans)

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


def test_several_inputs_and_outputs_have_nodes_and_names_of_their_own(tmp_path):
    figure = TwoInputs().plot(3, 5, path=tmp_path / "two.png")
    shown = labels(figure)
    for label in ("input x  3", "input z  5", "output 0  2", "output 1  4"):
        assert shown.count(label) == 1
    assert (tmp_path / "two.png").stat().st_size > 10_000


def test_outputs_in_a_dict_are_named_by_their_keys():
    class Heads(dl.Layer):
        def forward(self, *inputs):
            return {"sum": inputs[0] + inputs[1], "more": [inputs[1]]}

    shown = labels(Heads().plot(3, 3))
    for label in ("input 0  3", "input 1  3", "output sum  3", "output more.0  3"):
        assert shown.count(label) == 1


def test_the_input_of_the_first_node_and_the_output_of_the_last_are_next_to_it():
    class Later(dl.Layer):
        def __init__(self):
            self.dense = dl.Dense(5, 3, seed=0)

        def forward(self, x, z):
            first = self.dense(z)
            return first, dl.exp(first) + x

    texts = {text.get_text(): text.get_position()[1] for text in Later().plot(3, 5).axes[0].texts}
    assert texts["input x  3"] < texts["input z  5"] < 0
    assert texts["output 0  3"] > texts["output 1  3"] > 0


class Wordy(dl.Layer):
    """A network whose labels are long and nested deeply."""

    def __init__(self):
        part = dl.Network([dl.Normalize((28, 28, 1), "rescale-symmetric", over="element"), dl.Flatten()])
        for _ in range(4):
            part = dl.Network([part])
        self.a_name_that_is_too_long_for_a_line = part
        self.heads = {"logarithm_of_the_variance": dl.Dense(784, 2), "mean_of_the_code": dl.Dense(784, 2)}

    def forward(self, images, labels_that_are_not_used, third):
        code = self.a_name_that_is_too_long_for_a_line(images)
        return [head(code) * third for head in self.heads.values()]


@pytest.mark.parametrize(
    ("network", "shapes"), [(Wordy(), ((28, 28, 1), 7, 2)), (TwoInputs(), (3, 5)), (Tied(), ((4, 3, 1),))]
)
def test_labels_fit(network, shapes):
    """Nothing that is written leaves the figure, and no label leaves its box."""
    figure = network.plot(*shapes)
    axes = figure.axes[0]
    renderer = FigureCanvasAgg(figure).get_renderer()
    inside = axes.get_window_extent(renderer)
    boxes = [patch.get_window_extent(renderer) for patch in axes.patches]
    nodes, _ = nodes_of(trace(network, shapes))
    names = {node.label for node in nodes}
    for text in axes.texts:
        extent = text.get_window_extent(renderer)
        if not text.get_text():  # the arrows
            continue
        corners = [(extent.x0, extent.y0), (extent.x1, extent.y1)]
        assert all(inside.contains(x, y) for x, y in corners), text.get_text()
        if text.get_text() in names or text.get_text().startswith(("input", "output")):
            holding = [box for box in boxes if box.contains(*extent.get_points().mean(axis=0))]
            smallest = min(holding, key=lambda box: box.width)
            assert all(smallest.contains(x, y) for x, y in corners), text.get_text()


def test_names_of_parameters_are_written_in_full():
    shown = labels(Wordy().plot((28, 28, 1), 7, 2))
    assert "heads.logarithm_of_the_variance.weight" in shown


def test_arrows_that_end_at_one_node_end_at_different_heights():
    class Sum(dl.Layer):
        def __init__(self):
            self.parts = [dl.Dense(3, 3, seed=i) for i in range(4)]

        def forward(self, x):
            first, second, third, fourth = (part(x) for part in self.parts)
            return first + second + third + fourth

    axes = Sum().plot(3).axes[0]
    ends = [text.xy for text in axes.texts if not text.get_text() and text.arrow_patch is not None]
    assert len(set(ends)) == len(ends)


def test_a_plot_needs_a_shape():
    with pytest.raises(TypeError, match="needs the shape of one observation"):
        dl.Network([dl.Dense(3, 2)]).plot()
