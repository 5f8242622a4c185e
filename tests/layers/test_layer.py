import copy

import numpy
import pytest
from hypothesis import given
from hypothesis import strategies as st

import minidl as dl
from minidl.checks import check_gradients
from minidl.layers.layer import layer_hook
from tests.networks import TiedAutoencoder


class Holder(dl.Layer):
    """A Layer with whatever attributes a test wants."""

    def __init__(self, **attributes):
        vars(self).update(attributes)


class SumAndDifference(dl.Layer):
    def forward(self, x, y):
        return x + y, x - y


def parameter(*values):
    return dl.Parameter([float(value) for value in values])


def parameter_names(layer):
    return [name for name, _ in layer.named_parameters()]


def tensor_names(layer):
    return [name for name, _ in layer.named_tensors()]


# --- discovery ------------------------------------------------------------------------------------


def test_finds_parameters_in_attributes_lists_tuples_and_dicts_in_order():
    layer = Holder(
        number=3,
        alone=parameter(0),
        nested=[parameter(1), (parameter(2), {"key": parameter(3)})],
        nothing=None,
        table={"dense": dl.Dense(2, 2), "rest": [parameter(4)]},
        text="parameter",
        last=parameter(5),
    )
    assert parameter_names(layer) == [
        "alone",
        "nested.0",
        "nested.1.0",
        "nested.1.1.key",
        "table.dense.weight",
        "table.dense.bias",
        "table.rest.0",
        "last",
    ]


def test_state_tensors_are_tensors_but_not_parameters():
    layer = Holder(count=dl.tensor(0), inner=Holder(mean=dl.zeros(2), weight=parameter(1)))
    assert tensor_names(layer) == ["count", "inner.mean", "inner.weight"]
    assert parameter_names(layer) == ["inner.weight"]


def test_named_layers_come_depth_first_before_their_own_sub_layers():
    inner = Holder(dense=dl.Dense(2, 2))
    layer = Holder(inner=inner, after=[dl.ReLU(), inner])
    assert [name for name, _ in layer.named_layers()] == ["inner", "inner.dense", "after.0"]


def test_an_object_found_twice_is_listed_under_its_first_name():
    shared = parameter(1)
    layer = Holder(inner=Holder(deep=[shared]), again=shared, table={"third": shared})
    assert parameter_names(layer) == ["inner.deep.0"]


def test_attributes_are_looked_up_anew_each_time():
    layer = Holder(first=parameter(1))
    layer.second = dl.Dense(2, 2, bias=False)
    assert parameter_names(layer) == ["first", "second.weight"]
    del layer.first
    layer.second = parameter(2)
    assert parameter_names(layer) == ["second"]


def test_equal_values_are_not_shared():
    layer = Holder(a=parameter(1), b=parameter(1))
    assert parameter_names(layer) == ["a", "b"]
    assert layer.parameter_count() == 2


def test_two_tensors_with_one_name_are_refused_not_lost():
    layer = Holder(table={1: parameter(1), "1": parameter(2)})
    with pytest.raises(ValueError, match=r"table\.1"):
        layer.state_dict()


def test_a_layer_that_knows_its_parent_is_no_endless_loop():
    root = Holder(child=Holder(weight=parameter(1)))
    root.child.parent = root
    assert parameter_names(root) == ["child.weight"]
    assert [name for name, _ in root.named_layers()] == ["child"]
    assert not root.eval().child.training
    assert "child" in repr(root)


def test_a_result_kept_in_an_attribute_does_not_stop_loading():
    class KeepsItsOutput(dl.Layer):
        def __init__(self):
            self.dense = dl.Dense(2, 2, seed=0)

        def forward(self, x):
            self.output = self.dense(x)
            return self.output

    layer = KeepsItsOutput()
    layer(dl.ones((1, 2)))
    layer.load_state_dict(layer.state_dict())


trees = st.recursive(
    st.integers(0, 4),  # which of five Parameters
    lambda children: st.one_of(
        st.lists(children, max_size=3),
        st.lists(children, max_size=3).map(tuple),
        st.dictionaries(st.sampled_from("abc"), children, max_size=3),
        st.dictionaries(st.sampled_from("xyz"), children, max_size=3).map(lambda held: ("layer", held)),
    ),
    max_leaves=12,
)


@given(trees)
def test_parameters_stand_once_each_in_the_order_of_first_use(tree):
    pool = [parameter(i) for i in range(5)]
    expected = []

    def build(part):
        if isinstance(part, int):
            if part not in expected:
                expected.append(part)
            return pool[part]
        if isinstance(part, tuple) and part[:1] == ("layer",):
            return Holder(**{name: build(value) for name, value in part[1].items()})
        if isinstance(part, dict):
            return {name: build(value) for name, value in part.items()}
        return type(part)(build(value) for value in part)

    layer = Holder(tree=build(tree))
    assert [id(p) for p in layer.parameters()] == [id(pool[i]) for i in expected]
    assert layer.parameter_count() == len(expected)
    assert len(set(parameter_names(layer))) == len(expected)


# --- calling --------------------------------------------------------------------------------------


def test_a_layer_without_forward_says_so():
    with pytest.raises(NotImplementedError, match="Holder has no forward"):
        Holder()(dl.ones(2))


def test_several_inputs_and_outputs():
    total, difference = SumAndDifference()(dl.tensor([3.0]), dl.tensor([1.0]))
    assert total.tolist() == [4]
    assert difference.tolist() == [2]
    check_gradients(SumAndDifference(), numpy.ones((2, 3)), numpy.ones((1, 3)), order=2)


def test_numpy_arrays_become_tensors():
    total, _ = SumAndDifference()(numpy.float32([3]), dl.tensor([1.0]))
    assert isinstance(total, dl.Tensor)
    assert total.tolist() == [4]


def test_device_arrays_become_tensors(strict_gpu):
    dense = dl.Dense(3, 2, seed=0).to("gpu")
    assert dense(strict_gpu.asarray(numpy.ones((1, 3), "float32"))).shape == (1, 2)


# --- sharing --------------------------------------------------------------------------------------


@given(st.lists(st.booleans(), min_size=1, max_size=5))
def test_a_parameter_gets_the_sum_of_the_gradients_of_its_uses(transposed):
    rng = numpy.random.default_rng(0)
    values, x = rng.normal(size=(3, 3)), dl.tensor(rng.normal(size=(4, 3)))
    tied, untied = dl.Parameter(values), [dl.Parameter(values) for _ in transposed]

    def output(weights):
        z = x
        for weight, turned in zip(weights, transposed, strict=True):
            z = dl.tanh(z @ (weight.T if turned else weight))
        return (z * z).sum()

    output([tied] * len(transposed)).backward()
    output(untied).backward()
    numpy.testing.assert_allclose(tied.grad.numpy(), sum(weight.grad.numpy() for weight in untied))


def test_layers_and_networks_are_shared_at_any_depth():
    dense = dl.Dense(3, 3, seed=0).astype("float64")
    block = dl.Network([dense, dl.Tanh()])
    tied = dl.Network([block, dl.Network([dl.Network([block]), dense]), block])
    one, two, three, four = (copy.deepcopy(dense) for _ in range(4))
    untied = dl.Network([one, dl.tanh, two, dl.tanh, three, four, dl.tanh])
    assert tied.parameters() == [dense.weight, dense.bias]

    x = numpy.random.default_rng(0).normal(size=(5, 3))
    numpy.testing.assert_array_equal(tied(x).numpy(), untied(x).numpy())
    tied(x).sum().backward()
    untied(x).sum().backward()
    for name in ("weight", "bias"):
        expected = sum(getattr(layer, name).grad.numpy() for layer in (one, two, three, four))
        numpy.testing.assert_allclose(getattr(dense, name).grad.numpy(), expected)


def test_the_tied_autoencoder_against_an_untied_one():
    network = TiedAutoencoder(6, 5, 4).astype("float64")
    x = numpy.random.default_rng(1).uniform(size=(7, 6))
    encoder = [dl.Parameter(layer.weight) for layer in network.dense]
    decoder = [dl.Parameter(layer.weight.T) for layer in network.dense]

    z = dl.relu(dl.relu(dl.tensor(x) @ encoder[0]) @ encoder[1])
    untied = dl.sigmoid(dl.relu(z @ decoder[1]) @ decoder[0])
    tied = network(x)
    numpy.testing.assert_allclose(tied.numpy(), untied.numpy(), rtol=1e-12)
    dl.binary_cross_entropy(tied, x).backward()
    dl.binary_cross_entropy(untied, x).backward()
    for layer, there, back in zip(network.dense, encoder, decoder, strict=True):
        expected = there.grad.numpy() + back.grad.numpy().T
        numpy.testing.assert_allclose(layer.weight.grad.numpy(), expected, rtol=1e-10, atol=1e-15)


def test_gradients_of_the_tied_autoencoder():
    network = TiedAutoencoder(5, 4, 3).astype("float64")
    x = numpy.random.default_rng(2).uniform(size=(2, 5))
    check_gradients(lambda x: dl.binary_cross_entropy(network(x), numpy.full((2, 5), 0.3)), x, order=2)


def test_the_tied_autoencoder_has_the_originals_parameters():
    network = TiedAutoencoder(784, 784, 392, 196)
    assert network.parameter_count() == 1_002_148
    assert parameter_names(network) == [
        "encoder.0.weight",
        "encoder.0.bias",
        "encoder.2.weight",
        "encoder.2.bias",
        "encoder.4.weight",
        "encoder.4.bias",
        "biases.0",
        "biases.1",
        "biases.2",
    ]
    assert list(network.state_dict()) == parameter_names(network)
    assert network(dl.zeros((2, 784))).shape == (2, 784)


# --- copying --------------------------------------------------------------------------------------


def test_a_deep_copy_keeps_the_ties():
    twin = copy.deepcopy(TiedAutoencoder(4, 3, 2))
    assert twin.dense[0] is twin.encoder[0]
    assert twin.dense[1] is twin.encoder[2]
    assert len(twin.parameters()) == 6


def test_a_deep_copy_shares_nothing_with_the_original():
    network = TiedAutoencoder(4, 3, 2)
    before = network.state_dict()
    twin = copy.deepcopy(network)
    assert not {id(p) for p in twin.parameters()} & {id(p) for p in network.parameters()}
    for p in twin.parameters():
        p.assign(p + 1)
    for name, value in network.state_dict().items():
        numpy.testing.assert_array_equal(value, before[name])
        numpy.testing.assert_array_equal(twin.state_dict()[name], value + 1)


def test_a_deep_copy_keeps_factors_and_mode_and_drops_gradients():
    layer = Holder(weight=dl.Parameter([1.0], learning_rate_factor=0.5, l2_factor=3.0)).eval()
    (layer.weight * 2).sum().backward()
    twin = copy.deepcopy(layer)
    assert (twin.weight.learning_rate_factor, twin.weight.l2_factor) == (0.5, 3.0)
    assert twin.weight.requires_grad
    assert twin.weight.grad is None
    assert not twin.training


def test_an_optimizer_copied_with_its_network_trains_the_copy():
    network = dl.Dense(2, 1, seed=0)
    optimizer = dl.Adam(network.parameters())
    twin, twins_optimizer = copy.deepcopy((network, optimizer))
    before = network.state_dict()
    twin(dl.ones((1, 2))).sum().backward()
    twins_optimizer.step()
    numpy.testing.assert_array_equal(network.weight.numpy(), before["weight"])
    assert (twin.weight.numpy() != before["weight"]).all()


# --- modes ----------------------------------------------------------------------------------------


def test_train_and_eval_reach_every_layer():
    shared = dl.Dropout()
    network = dl.Network([shared, Holder(parts={"a": [dl.Dropout()], "b": dl.Network([shared])})])
    layers = [network] + [layer for _, layer in network.named_layers()]
    assert all(layer.training for layer in layers)
    assert network.eval() is network
    assert not any(layer.training for layer in layers)
    assert network.train() is network
    assert all(layer.training for layer in layers)
    network.train(False)
    assert not any(layer.training for layer in layers)


def test_evaluating_leaves_every_layer_in_the_mode_it_found():
    shared = dl.Dropout(seed=0)
    network = dl.Network([shared, Holder(part=dl.Dropout().eval()), dl.Network([shared]).eval().train()])
    layers = [network] + [layer for _, layer in network.named_layers()]
    modes = [layer.training for layer in layers]
    assert True in modes
    assert False in modes
    with network.evaluating() as inside:
        assert inside is network
        assert not any(layer.training for layer in layers)
    assert [layer.training for layer in layers] == modes
    with pytest.raises(ZeroDivisionError), network.evaluating():
        raise ZeroDivisionError
    assert [layer.training for layer in layers] == modes


def test_evaluating_within_evaluating():
    layer = dl.Dropout()
    with layer.evaluating():
        with layer.evaluating():
            pass
        assert not layer.training
    assert layer.training


def test_a_compiled_function_is_recorded_for_either_mode(rng):
    network = dl.Network([dl.Dropout(0.5, seed=0)])
    forward = dl.compile(lambda x: network(x))
    x = rng.normal(size=(20, 20)).astype("float32")
    assert (forward(x).numpy() == 0).any()
    with network.evaluating():
        numpy.testing.assert_array_equal(forward(x).numpy(), x)
    assert (forward(x).numpy() == 0).any()


def test_named_generators_finds_each_once_under_its_first_name():
    shared = dl.Generator(1)
    network = dl.Network(
        [
            dl.Dropout(seed=shared),
            Holder(noise=[dl.Generator(2), shared]),
            dl.Dense(2, 2),
            dl.Dropout(seed=shared),
        ]
    )
    network.own = dl.Generator(3)
    assert [name for name, _ in network.named_generators()] == ["0.generator", "1.noise.0", "own"]
    assert dict(network.named_generators())["0.generator"] is shared


# --- layer hooks -------------------------------------------------------------------------------


def test_a_hook_sees_the_inputs_and_outputs_of_every_layer(rng):
    seen = []

    def hook(layer, inputs):
        seen.append(("in", layer, inputs))
        outputs = layer.forward(*inputs)
        seen.append(("out", layer, outputs))
        return outputs

    inner = dl.Network([dl.Dense(3, 2, seed=0), dl.tanh])
    network = dl.Network([inner, dl.ReLU()])
    x = rng.normal(size=(4, 3)).astype("float32")
    expected = network(x)
    with layer_hook(hook):
        result = network(x)
    numpy.testing.assert_array_equal(result.numpy(), expected.numpy())
    order = [("in", network), ("in", inner), ("in", inner[0]), ("out", inner[0]), ("out", inner)]
    order += [("in", network[1]), ("out", network[1]), ("out", network)]
    assert [(what, layer) for what, layer, _ in seen] == order
    assert isinstance(seen[0][2][0], dl.Tensor)  # arrays have become Tensors
    assert seen[4][2] is seen[5][2][0]
    assert seen[-1][2] is result
    network(x)
    assert len(seen) == len(order)  # the hook is gone


def test_a_hook_may_replace_what_a_layer_computes():
    network = dl.Network([dl.Dense(3, 2, seed=0), dl.ReLU()])
    with layer_hook(lambda layer, inputs: dl.ones(7) if layer is network[1] else layer.forward(*inputs)):
        assert network(dl.ones((1, 3))).shape == (7,)


def test_the_outer_hook_comes_back_after_an_inner_one_and_after_an_error():
    calls = []

    def outer(layer, inputs):
        calls.append("outer")
        return layer.forward(*inputs)

    with layer_hook(outer):
        with pytest.raises(ZeroDivisionError), layer_hook(lambda layer, inputs: 1 / 0):
            dl.ReLU()(dl.ones(1))
        dl.ReLU()(dl.ones(1))
    assert calls == ["outer"]


# --- dtypes and devices ---------------------------------------------------------------------------


def test_astype_converts_floats_only_and_keeps_sharing():
    shared = parameter(1)
    layer = Holder(a=shared, b=Holder(c=shared), count=dl.tensor(3), mean=dl.zeros(2))
    (shared * 2).sum().backward()
    assert layer.astype("float64") is layer
    assert layer.a is layer.b.c
    assert shared.dtype == layer.mean.dtype == numpy.float64
    assert layer.count.dtype == numpy.int64
    assert shared.grad is None


def test_parameters_stay_floating_point():
    with pytest.raises(TypeError, match="int32"):
        dl.Dense(2, 2).astype("int32")


def test_moving_keeps_sharing_and_moves_gradients_and_state(strict_gpu):
    network = TiedAutoencoder(4, 3, 2)
    network.mean = dl.zeros(3)
    dl.binary_cross_entropy(network(dl.ones((1, 4))), numpy.ones((1, 4))).backward()
    identities = [id(p) for p in network.parameters()]
    expected = [p.grad.numpy() for p in network.parameters()]

    assert network.to("gpu") is network
    assert network.dense[0] is network.encoder[0]
    assert [id(p) for p in network.parameters()] == identities
    assert {x.device for _, x in network.named_tensors()} == {"gpu:0"}
    assert {p.grad.device for p in network.parameters()} == {"gpu:0"}
    network.to("cpu")
    for p, gradient in zip(network.parameters(), expected, strict=True):
        assert type(p.data) is numpy.ndarray
        numpy.testing.assert_array_equal(p.grad.numpy(), gradient)


def test_an_unknown_device_is_refused_and_nothing_moves(strict_gpu):
    dense = dl.Dense(2, 2)
    for device in ("tpu", "gpu:2"):
        with pytest.raises(dl.devices.DeviceError, match=device):
            dense.to(device)
    assert dense.weight.device == "cpu"


OPTIMIZERS = {
    "SGD": lambda parameters: dl.SGD(parameters, 0.1, nesterov=True, clip_value=0.5),
    "RMSProp": lambda parameters: dl.RMSProp(parameters, 0.01, clip_norm=0.1),
    "Adam": lambda parameters: dl.Adam(parameters, 0.01, l2=1e-4, clip_global_norm=0.1),
    "AdamW": lambda parameters: dl.AdamW(parameters, dl.schedules.Cosine(0.01, steps=5)),
}


def train(network, optimizer, x, steps=3):
    for _ in range(steps):
        loss = dl.binary_cross_entropy(network(x), x)
        loss.backward()
        optimizer.step()
    return loss.item()


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_training_on_a_device_gives_the_numbers_of_the_cpu(name, strict_gpu, rng):
    images = rng.uniform(size=(6, 8)).astype("float32")
    here, there = TiedAutoencoder(8, 6, 4), TiedAutoencoder(8, 6, 4).to("gpu")
    loss_here = train(here, OPTIMIZERS[name](here.parameters()), dl.tensor(images))
    loss_there = train(there, OPTIMIZERS[name](there.parameters()), dl.tensor(images, device="gpu"))
    assert loss_here == loss_there
    assert {p.device for p in there.parameters()} == {"gpu:0"}
    for name, value in there.state_dict().items():
        numpy.testing.assert_array_equal(value, here.state_dict()[name])


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_an_optimizer_follows_a_network_that_is_moved(name, strict_gpu, rng):
    images = rng.uniform(size=(6, 8)).astype("float32")
    here, there = TiedAutoencoder(8, 6, 4), TiedAutoencoder(8, 6, 4)
    optimizer = OPTIMIZERS[name](there.parameters())
    train(there, optimizer, dl.tensor(images))
    train(there.to("gpu"), optimizer, dl.tensor(images, device="gpu"))
    train(here, OPTIMIZERS[name](here.parameters()), dl.tensor(images), steps=6)
    for name, value in there.state_dict().items():
        numpy.testing.assert_array_equal(value, here.state_dict()[name])


def test_layers_and_losses_run_on_a_device(gpu, rng):
    network = dl.Network(
        [
            dl.Flatten(),
            dl.Dense(8, 6, seed=0),
            dl.Tanh(),
            dl.Dropout(0.5, seed=0),
            dl.Reshape(2, 3),
            dl.Sigmoid(),
            dl.Flatten(),
            dl.Dense(6, 3, seed=1),
        ]
    ).to("gpu")
    optimizer = dl.Adam(network.parameters())
    x = dl.tensor(rng.normal(size=(5, 4, 2)).astype("float32"), device="gpu")
    labels = dl.tensor([0, 1, 2, 1, 0], device="gpu")
    before = network.state_dict()
    for _ in range(2):
        loss = dl.softmax_cross_entropy(network(x), labels)
        loss.backward()
        optimizer.step()
    scores = dl.Softmax()(network.eval()(x))
    assert loss.device == scores.device == dl.accuracy(scores, labels).device == "gpu:0"
    assert numpy.isfinite(scores.numpy()).all()
    assert all((value != before[name]).any() for name, value in network.state_dict().items())


def test_mixed_devices_are_refused_by_name(strict_gpu):
    network = dl.Network([dl.ReLU(), dl.Dense(3, 2, seed=0)]).to("gpu")
    with pytest.raises(ValueError, match=r"Dense\(3, 2\) is on gpu:0; got an input on cpu.*\.to\('gpu:0'\)"):
        network(dl.ones((1, 3)))
    y = network(dl.ones((1, 3), device="gpu"))
    for loss in (dl.mean_squared_error, dl.binary_cross_entropy_with_logits, dl.huber):
        with pytest.raises(dl.devices.DeviceError) as refusal:
            loss(y, numpy.zeros((1, 2), "float32"))
        assert "gpu:0" in str(refusal.value)
        assert "cpu" in str(refusal.value)


# --- showing --------------------------------------------------------------------------------------


def test_the_printed_tree_points_back_to_shared_layers():
    shared = dl.Dense(4, 3)
    layer = Holder(encoder=dl.Network([shared, dl.ReLU()]), parts=[shared], bias=parameter(1))
    assert repr(layer) == (
        "Holder(\n"
        "  (encoder): Network(\n"
        "    (0): Dense(4, 3)\n"
        "    (1): ReLU()\n"
        "  )\n"
        "  (parts.0): the same as encoder.0\n"
        ")"
    )


def test_a_layer_shows_its_extra_repr():
    class Scale(dl.Layer):
        def extra_repr(self):
            return "by=2"

    assert repr(Scale()) == "Scale(by=2)"
    assert repr(Holder(inner=Scale())) == "Holder(\n  (inner): Scale(by=2)\n)"


def test_the_old_name_of_extra_repr_still_works_and_warns():
    with pytest.warns(
        DeprecationWarning, match=r"Scale\.settings\(\) is now called extra_repr\(\)"
    ) as warned:

        class Scale(dl.Layer):
            def settings(self):
                return "by=2"

    assert warned[0].filename == __file__
    assert repr(Scale()) == "Scale(by=2)"
    with pytest.warns(DeprecationWarning, match="extra_repr"):
        assert dl.Dense(3, 2).settings() == "3, 2"


def test_an_attribute_named_settings_is_no_old_name():
    class Configured(dl.Layer):
        settings = {"a": 1}  # noqa: RUF012

    assert repr(Configured()) == "Configured()"


class Keeping(dl.Layer):
    """Keeps a result, and replaces a state that was made in __init__."""

    def __init__(self):
        self.dense = dl.Dense(3, 2, seed=0)
        self.mean = dl.zeros(3)

    def forward(self, x):
        self.mean = 0.9 * self.mean + 0.1 * x.mean(axis=0)
        self.code = dl.relu(self.dense(x))
        self.pair = [self.code * 2, 1.5]
        return self.code


@pytest.mark.parametrize("options", [None, {"kernels": "numpy"}])
def test_results_that_a_call_keeps_are_there_and_are_no_state(options, tmp_path):
    layer, x = Keeping(), dl.ones((2, 3))
    names = list(layer.state_dict())
    call = layer if options is None else dl.compile(lambda x: layer(x), **options)
    for factor in (1.0, 2.0, 3.0):
        with dl.no_grad():
            numpy.testing.assert_array_equal(call(x * factor).numpy(), layer.code.numpy())
        numpy.testing.assert_array_equal(layer.pair[0].numpy(), 2 * layer.code.numpy())
        assert list(layer.state_dict()) == names
    layer.save(tmp_path / "weights.safetensors")
    other = Keeping().load(tmp_path / "weights.safetensors")
    numpy.testing.assert_array_equal(other.mean.numpy(), layer.mean.numpy())
    assert list(copy.deepcopy(layer).state_dict()) == names


def test_a_tensor_that_is_set_outside_of_a_call_is_state():
    layer = Keeping()
    layer(dl.ones((2, 3)))
    layer.code = dl.zeros(2)
    assert "code" in layer.state_dict()
