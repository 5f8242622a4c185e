import numpy
import pytest
import safetensors.numpy

import minidl as dl
from minidl import weight_names


class Tied(dl.Layer):
    """A sub-layer under two names, and a Parameter of it under a third."""

    def __init__(self, seed=0):
        self.encoder = dl.Network([dl.Dense(3, 2, seed=seed), dl.ReLU()])
        self.again = self.encoder[0]
        self.table = self.again.weight
        self.scale = dl.Parameter(0.5)


class Untied(dl.Layer):
    def __init__(self):
        self.encoder = dl.Network([dl.Dense(3, 2, seed=1), dl.ReLU()])
        self.again = dl.Dense(3, 2, seed=2)
        self.table = dl.Parameter(dl.zeros((3, 2)))
        self.scale = dl.Parameter(0.0)


def assert_same_state(a, b):
    a, b = a.state_dict(), b.state_dict()
    assert list(a) == list(b)
    for name, x in a.items():
        numpy.testing.assert_array_equal(x, b[name], err_msg=name)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "weights.safetensors"


# --- shared Parameters ----------------------------------------------------------------------------


def test_all_names_of_what_is_shared():
    assert Tied().shared_names() == {
        "again.weight": "encoder.0.weight",
        "again.bias": "encoder.0.bias",
        "table": "encoder.0.weight",
    }
    assert Untied().shared_names() == {}


def test_what_is_shared_is_stored_once(path):
    Tied().save(path)
    assert sorted(safetensors.numpy.load_file(path)) == ["encoder.0.bias", "encoder.0.weight", "scale"]


@pytest.mark.parametrize(
    "stored",
    [
        {"encoder.0.weight", "encoder.0.bias"},
        {"again.weight", "again.bias"},
        {"table", "encoder.0.bias"},
        {"encoder.0.weight", "again.weight", "table", "again.bias", "encoder.0.bias"},
    ],
    ids=len,
)
def test_either_or_all_names_are_loaded(stored, path):
    source, target = Tied(seed=1), Tied()
    values = source.state_dict()
    names = source.shared_names()
    state = {name: values[names.get(name, name)] for name in sorted(stored)} | {"scale": values["scale"]}
    safetensors.numpy.save_file(state, path)
    for load in (lambda: target.load_state_dict(state), lambda: target.load(path)):
        for x in target.parameters():
            x.assign(x * 0)
        load()
        assert_same_state(target, source)


def test_copies_that_differ_are_refused_by_both_names():
    layer = Tied()
    state = layer.state_dict()
    for other in (state["encoder.0.weight"] + 1, numpy.zeros((2, 3)), numpy.full((3, 2), numpy.nan)):
        with pytest.raises(ValueError, match=r"two different arrays for encoder\.0\.weight.* and table"):
            layer.load_state_dict({**state, "table": other})
    assert_same_state(layer, Tied())


def test_equal_copies_may_hold_nan():
    layer = dl.Layer()
    layer.a = layer.b = dl.zeros(2)
    unknown = numpy.full(2, numpy.nan)
    layer.load_state_dict({"a": unknown, "b": unknown.copy()})
    assert numpy.isnan(layer.a.numpy()).all()


def test_a_network_that_shares_nothing_finds_every_name_in_a_file_of_one_that_does(path):
    tied, untied = Tied(), Untied()
    tied.save(path)
    reports = []
    untied.load(path, report=reports.append)
    for name in ("encoder.0.weight", "again.weight", "table"):
        numpy.testing.assert_array_equal(untied.state_dict()[name], tied.table.numpy())
        assert reports[0].loaded[name] == "encoder.0.weight"


def test_a_network_whose_first_name_is_another_one(path):
    class Turned(dl.Layer):
        def __init__(self):
            self.scale = dl.Parameter(0.0)
            self.table = dl.Parameter(dl.zeros((3, 2)))
            self.bias = dl.Parameter(dl.zeros(2))

    Tied().save(path)
    layer = Turned().load(path, rename={"again": ""})
    numpy.testing.assert_array_equal(layer.table.numpy(), Tied().table.numpy())


def test_a_circle_of_layers_ends():
    parent, child = dl.Layer(), dl.Dense(2, 2)
    parent.child, child.parent = child, parent
    assert list(parent.shared_names()) == []
    assert len(list(parent.named_occurrences())) == 4  # weight and bias, the child, and the parent in it


def test_names_that_multiply_come_to_an_end():
    layer = dl.Dense(1, 1)
    for _ in range(40):
        layer = dl.Network([layer, layer])
    assert len(list(layer.named_occurrences())) == 10_000


# --- parts ----------------------------------------------------------------------------------------


def test_not_strict_leaves_what_is_missing_and_tells_all():
    source, target = Untied(), Untied()
    state = {name: x + 1 for name, x in source.state_dict().items()}
    del state["table"]
    state["head.weight"] = numpy.zeros(3)
    with pytest.raises(ValueError, match=r"missing: table"):
        target.load_state_dict(state)
    report = target.load_state_dict(state, strict=False)
    assert report.missing == ["table"]
    assert report.unexpected == ["head.weight"]
    assert report.loaded == {name: name for name in state if name != "head.weight"}
    assert str(report).splitlines() == [
        "5 Tensors loaded",
        *(f"  {name}" for name in report.loaded),
        "1 not in the state: table",
        "1 not used: head.weight",
    ]
    assert target.scale.item() == 1.0
    assert not target.table.numpy().any()


def test_not_strict_still_refuses_wrong_shapes_and_what_is_for_another_network():
    layer = Untied()
    with pytest.raises(ValueError, match="wrong shape: table"):
        layer.load_state_dict({"table": numpy.zeros((2, 3)), "scale": 7.0 * numpy.ones(())}, strict=False)
    with pytest.raises(ValueError, match=r"nothing in the state .* has a, b; the network has encoder"):
        layer.load_state_dict({"a": numpy.zeros(1), "b": numpy.zeros(1)}, strict=False)
    assert_same_state(layer, Untied())


def test_a_prefix_and_new_names(path):
    whole, part = Untied(), dl.Network([dl.Dense(3, 2, seed=5), dl.ReLU()])
    whole.save(path)
    part.load(path, prefix="encoder.")
    numpy.testing.assert_array_equal(part[0].weight.numpy(), whole.encoder[0].weight.numpy())
    part.load(path, strict=False, rename={"again": "0"})
    numpy.testing.assert_array_equal(part[0].weight.numpy(), whole.again.weight.numpy())
    part.load(path, rename=lambda name: name.replace("again", "0") if name.startswith("again") else None)
    numpy.testing.assert_array_equal(part[0].bias.numpy(), whole.again.bias.numpy())


@pytest.mark.parametrize(
    ("name", "new"),
    [
        ("a.b.c", "short.b.c"),
        ("a.x.y", "long.y"),
        ("ab.c", "ab.c"),
        ("a", "short"),
        ("deep.z", "z"),
        ("other", "other"),
    ],
)
def test_the_longest_key_renames_whole_parts(name, new):
    assert weight_names.renamed(name, "", {"a": "short", "a.x": "long", "deep": ""}) == new
    assert weight_names.renamed(f"p.{name}", "p.", {"a": "short", "a.x": "long", "deep": ""}) == new
    assert weight_names.renamed(name, "q.", None) is None


def test_what_renames_nothing_is_refused():
    layer = Untied()
    with pytest.raises(TypeError, match="rename is a dict or a function of a name, got str"):
        layer.load_state_dict(layer.state_dict(), rename="encoder")


def test_a_shared_name_that_another_parameter_has_too():
    layer = dl.Layer()
    layer.a = dl.Parameter([1.0])
    layer.b = layer.a
    twin = dl.Layer()
    twin.a, twin.b = dl.Parameter([5.0]), dl.Parameter([6.0])
    with pytest.raises(ValueError, match="two different arrays for a"):
        layer.load_state_dict(twin.state_dict())
    twin.load_state_dict({"a": numpy.ones(1), "b": numpy.zeros(1)})
    assert (twin.a.item(), twin.b.item()) == (1.0, 0.0)
