"""What is on a GPU that is not CuPy's current one stays there, and works there.

The stand-in refuses every operation on arrays of another GPU than the current one, and makes new arrays on
the current one, which all through these tests is the first. Larger parts of the suite run on the second GPU
by the fixture `gpu_name`.
"""

import contextlib
import copy

import numpy
import pytest

import minidl as dl
from minidl import devices
from minidl.primitives.primitive import PRIMITIVES, elementwise
from minidl.program.cpu import peak_rates as cpu_peak_rates
from minidl.program.gpu import peak_rates as gpu_peak_rates
from tests import strict_device

SECOND = "gpu:1"


@pytest.fixture(autouse=True)
def second(gpu):
    if gpu.cuda.runtime.getDeviceCount() < 2:
        pytest.skip("there is no second GPU on this machine")
    yield
    assert gpu.cuda.runtime.getDevice() == 0


def on_second(values, **options):
    return dl.tensor(numpy.asarray(values), device=SECOND, **options)


def test_tensors_are_made_there():
    x = on_second([[1.0, 2.0], [3.0, 4.0]])
    made = [
        dl.zeros(3, device=SECOND),
        dl.ones((2, 3), device=SECOND),
        dl.full(2, 7.0, device=SECOND),
        dl.arange(4, device=SECOND),
        x.zeros_like(),
        dl.ones_like(x),
        dl.tensor(x),
        dl.tensor(x, dtype="float16"),
        dl.Parameter(x),
        copy.deepcopy(x),
        copy.deepcopy(dl.Parameter(x)),
        x.copy(),
        x.detach(),
        x.astype("float16"),
        2 + x,
        x > 2,
        x[dl.tensor([1], device=SECOND)],
        x[[0, 1]],
        x[x > 2],
        x[(x > 2).data],
        (x > 2).nonzero()[0],
        dl.stack([x, x]),
        x.argmax(axis=1),
        dl.where(x > 2, x, 0.0),
    ]
    assert [y.device for y in made] == [SECOND] * len(made)


def test_values_are_read_there():
    x = on_second([[1.0, 2.0], [3.0, 4.0]])
    assert x.T.numpy().tolist() == [[1, 3], [2, 4]]
    assert x.tolist() == [[1, 2], [3, 4]]
    assert x.sum().item() == float(x.sum()) == 10
    assert bool(x[0, 0] > 0)
    assert repr(x[0]) == "tensor([1., 2.], dtype=float64, device=gpu:1)"
    assert [axis.tolist() for axis in (x > 2).nonzero()] == [[1, 1], [0, 1]]


def test_values_are_assigned_there():
    x = on_second([1.0, 2.0])
    x.assign(x * 2)
    x.assign(x + on_second(numpy.ones(2, "float32")))
    assert x.tolist() == [3, 5]
    x[:1].reshape(()).assign(7)
    assert x.tolist() == [7, 5]
    assert x.device == SECOND


@pytest.mark.parametrize(
    "values", [numpy.ones((3, 4)), numpy.ones((3, 4)).T, numpy.float64(3), numpy.ones(0)]
)
def test_from_one_gpu_to_the_other_and_back(values):
    x = dl.tensor(values, device="gpu:0", requires_grad=True)
    y = x.to(SECOND)
    assert (y.device, y.shape, y.requires_grad) == (SECOND, x.shape, True)
    z = y.to("gpu:0")
    assert z.device == "gpu:0"
    assert z.data is not x.data
    numpy.testing.assert_array_equal(z.numpy(), values)
    assert x.to("cpu").T.to(SECOND).to("gpu").device == "gpu:0"
    transposed = on_second(numpy.arange(6.0).reshape(2, 3)).T.to("gpu:0")
    assert transposed.tolist() == [[0, 3], [1, 4], [2, 5]]


def test_copies_between_gpus_are_in_order_with_both(strict_gpu):
    """The stand-in raises `Race` where one GPU does not wait for the other."""
    for _ in range(3):
        x = dl.tensor(numpy.ones(500), device="gpu:0")
        x.assign(x + 1)
        y = x.to(SECOND)
        del x
        other = strict_gpu.empty(500)  # the memory of x
        other.fill(7)
        y.assign(y * 2)
        assert y.sum().item() == 2000
    assert "synchronize()" not in strict_device.synchronisations


def test_training_moves_with_its_network(rng):
    x, y = rng.normal(size=(2, 6, 3)).astype("float32")

    def trained(*places):
        network = dl.Network([dl.Dense(3, 3, seed=0), dl.Tanh()])
        optimizer = dl.Adam(network.parameters(), clip_global_norm=1.0, l2=0.1)
        for place in places:
            network.to(place)
            loss = dl.mean_squared_error(network(dl.tensor(x, device=place)), dl.tensor(y, device=place))
            loss.backward()
            assert {p.grad.device for p in network.parameters()} == {loss.device}
            optimizer.step()
            assert {t.device for t in optimizer.named_tensors().values()} == {loss.device}
        return network.state_dict()

    moved, stayed = trained("cpu", SECOND, "gpu:0", SECOND, "cpu"), trained(*["cpu"] * 5)
    for name, array in stayed.items():
        numpy.testing.assert_allclose(moved[name], array, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("optimizer", [dl.SGD, dl.RMSProp, dl.Adam, dl.AdamW, dl.LBFGS])
def test_every_optimizer(optimizer, rng):
    x, y = rng.normal(size=(2, 8, 3)).astype("float32")
    losses = []
    for device in ("cpu", SECOND):
        network = dl.Network([dl.Dense(3, 3, seed=0), dl.Sigmoid()])
        options = {"max_iterations": 5} if optimizer is dl.LBFGS else {"learning_rate": 0.01}
        trainer = dl.Trainer(
            network,
            dl.mean_squared_error,
            optimizer(network.to(device).parameters(), **options),
            device=device,
            seed=0,
        )
        losses.append(trainer.fit(x, y, epochs=5, batch_size=4, verbose=False).steps["loss"])
    numpy.testing.assert_allclose(*losses, rtol=1e-4)


LOSSES = {
    dl.binary_cross_entropy: (0, 1),
    dl.mean_squared_error: (-1, 1),
    dl.mean_absolute_error: (-1, 1),
    dl.softmax_cross_entropy: (0, 1),
}


@pytest.mark.parametrize("loss", LOSSES, ids=lambda loss: loss.__name__)
def test_losses_and_metrics(loss, rng):
    x, y = rng.uniform(0.1, 0.9, (2, 5, 3))
    y /= y.sum(axis=-1, keepdims=True)  # probabilities
    results = []
    for device in ("cpu", SECOND):
        a, b = dl.tensor(x, device=device, requires_grad=True), dl.tensor(y, device=device)
        value = loss(a, b)
        value.backward()
        assert a.grad.device == device
        figures = [metric(a, b) for metric in (dl.rmse, dl.mae, dl.accuracy)]
        assert {figure.device for figure in figures} == {device}
        results.append([value.numpy(), a.grad.numpy(), *(figure.numpy() for figure in figures)])
    for ours, theirs in zip(*results, strict=True):
        numpy.testing.assert_allclose(ours, theirs, rtol=1e-6)


def test_networks_are_saved_and_loaded(tmp_path, rng):
    network = dl.Network([dl.Normalize((3,)).fit(rng.normal(size=(9, 3))), dl.Dense(3, 2, seed=0)]).to(SECOND)
    network.save(tmp_path / "weights.safetensors")
    other = dl.Network([dl.Normalize((3,)), dl.Dense(3, 2, seed=1)])
    other.load(tmp_path / "weights.safetensors")
    third = copy.deepcopy(other).to("gpu:0")
    third.load(tmp_path / "weights.safetensors")
    network.load_state_dict(third.state_dict())
    assert [n[1].weight.device for n in (network, other, third)] == [SECOND, "cpu", "gpu:0"]
    assert network[1].weight.tolist() == other[1].weight.tolist() == third[1].weight.tolist()
    twin = copy.deepcopy(network).astype("float64")
    assert {x.device for _, x in twin.named_tensors()} == {SECOND}
    network[0].fit(rng.normal(size=(9, 3)))
    assert network[0].offset.device == SECOND


@pytest.mark.parametrize("compiled", [True, False])
def test_one_generator_draws_on_both_gpus(compiled):
    generator = dl.Generator(3)
    layer = dl.Dropout(0.5, seed=generator)
    step = dl.compile(_Call(layer)) if compiled else layer
    draws = {device: step(dl.ones(64, device=device)) for device in ("gpu:0", SECOND, "cpu")}
    assert [x.device for x in draws.values()] == ["gpu:0", SECOND, "cpu"]
    assert {index: stream.state.device.id for index, stream in generator.on_device.items()} == {0: 0, 1: 1}
    state = generator.state_dict()
    first = step(dl.ones(64, device=SECOND)).tolist()
    generator.load_state_dict(state)
    assert step(dl.ones(64, device=SECOND)).tolist() == first
    assert step(dl.ones(64, device=SECOND)).tolist() != first


class _Call:
    __name__ = "call"

    def __init__(self, layer):
        self.layer = layer

    def __call__(self, x):
        return self.layer(x) * 2


def test_one_compiled_function_on_both_gpus(rng, monkeypatch):
    monkeypatch.setattr(gpu_peak_rates, "peak_rates", lambda *arguments: (1.0, 1.0))  # takes long
    monkeypatch.setattr(cpu_peak_rates, "peak_rates", lambda *arguments: (1.0, 1.0))
    x = rng.normal(size=(4, 4)).astype("float32")
    step = dl.compile(lambda x: (dl.tanh(x.T @ x + 1), x.sum()), poison=True, verify=True)
    for device in ("gpu:0", SECOND, "gpu:0", SECOND, "cpu", SECOND):
        product, total = step(dl.tensor(x, device=device))
        assert product.device == total.device == device
        numpy.testing.assert_allclose(product.numpy(), numpy.tanh(x.T @ x + 1), rtol=1e-5)
    assert len(step.programs) == 3
    for program in step.programs:
        assert "tanh" in str(program)
        assert "tanh" in program.profile(2)


def test_a_program_on_two_gpus_is_computed_the_plain_way():
    counts = [dl.tensor(numpy.zeros(1), device=device) for device in ("gpu:0", SECOND)]

    @dl.compile
    def step(x, images):
        for count in counts:
            count.assign(count + 1)
        x.requires_grad = True
        y = x * 2 + dl.tanh(dl.zeros(2, dtype="float64", device=SECOND)) + 1  # constants are folded
        return y, dl.grad(dl.relu(y).reshape(2, 1).sum(), x), dl.relu(images * 2).sum()

    for i in range(3):
        y, gradient, total = step(on_second(numpy.full(2, float(i))), on_second(numpy.ones((2, 3, 4))))
        assert total.item() == 48
        assert y.tolist() == [2 * i + 1] * 2
        assert gradient.tolist() == [2, 2]
    assert [count.item() for count in counts] == [3, 3]


def test_checks_run_there(rng):
    x = on_second(rng.normal(size=(3, 2)))
    dl.check_gradients(lambda x: (dl.tanh(x) * x).sum(), x)
    dl.check_gradients(dl.Dense(2, 3, seed=0).to(SECOND), x, sample=3)
    with pytest.raises(AssertionError):
        dl.check_gradients(lambda x: (x * x.detach()).sum(), x)
    dl.check_layer(dl.Dense(4, 3, seed=0).to(SECOND), (4,))
    with pytest.raises(AssertionError, match="stops the gradient"):
        dl.check_gradients(_Stateful().to(SECOND), x)


class _Stateful(dl.Layer):
    def __init__(self):
        self.mean = dl.zeros(2)

    def forward(self, x):
        self.mean.assign(self.mean * 0.5 + x.mean(axis=0))
        return x * x.detach() + self.mean


def test_a_forward_that_overwrites_its_input_is_named_there(rng):
    try:
        double = elementwise("double_of_a_user", _double_in_place, gradients=(lambda g, out, x: g * 2,))
        with pytest.raises(AssertionError, match="'double_of_a_user' overwrites its input"):
            dl.check_gradients(lambda x: double(dl.tanh(x)) * 1, on_second(rng.normal(size=(3, 2))))
    finally:
        PRIMITIVES.pop("double_of_a_user", None)


def _double_in_place(xp, x, out=None):
    result = xp.multiply(x, 2.0, out=x)
    if out is not None:
        xp.copyto(out, result)
    return xp.multiply(x, 1.0)


def test_arrays_there_are_data(rng):
    """Data that lie on one GPU, for a network on the other and on the same."""
    x, y = rng.normal(size=(2, 12, 3)).astype("float32")
    weights = []
    x = x.astype("float64")  # to be converted where it is
    for place, device in (
        (SECOND, SECOND),
        ("gpu:0", SECOND),
        (SECOND, "gpu:0"),
        ("cpu", SECOND),
        ("cpu", "cpu"),
    ):
        network = dl.Network([dl.Normalize((3,)), dl.Dense(3, 3, seed=0)])
        trainer = dl.Trainer(network, dl.mean_squared_error, metrics=[_largest], device=device, seed=0)
        data = [devices.to_device(array, place) for array in (x, y)]
        trainer.fit(*data, epochs=2, batch_size=5, validation_data=tuple(data), verbose=False)
        weights.append(
            [network[1].weight.numpy(), trainer.predict(data[0]), trainer.evaluate(*data)["_largest"]]
        )
    for ours in weights[:-1]:
        for a, b in zip(ours, weights[-1], strict=True):
            numpy.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)


def _largest(prediction, target):
    return abs(prediction - target).max()


def test_a_training_is_resumed_on_another_gpu(rng, tmp_path):
    x, y = rng.normal(size=(2, 12, 3)).astype("float32")
    ends = []
    for places in ((SECOND, SECOND), ("gpu:0", SECOND), ("cpu",)):
        for i, place in enumerate(places):
            network = dl.Network([dl.Dense(3, 3, seed=0), dl.Tanh()])
            trainer = dl.Trainer(network, dl.mean_squared_error, device=place, seed=0)
            folder = tmp_path / "-".join(places).replace(":", "")
            options = {"validation_data": (x, y), "validation_frequency": 2, "verbose": False}
            if len(places) > 1:
                options |= {"checkpoint_folder": folder, "resume": True}
            moved = (
                pytest.warns(UserWarning, match="device was 'gpu:0'")
                if i and places[0] != place
                else contextlib.nullcontext()
            )
            with moved:
                trainer.fit(x, y, epochs=(i + 1) if len(places) > 1 else 2, batch_size=4, **options)
        ends.append(network.state_dict())
    for state in ends[:-1]:
        for name, array in ends[-1].items():
            numpy.testing.assert_allclose(state[name], array, rtol=1e-4, atol=1e-6)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_divergence_is_found_there():
    x = numpy.full((8, 3), 1e30, "float32")
    network = dl.Network([dl.Dense(3, 3, seed=0)])
    trainer = dl.Trainer(network, dl.mean_squared_error, device=SECOND, seed=0)
    with pytest.raises(FloatingPointError, match="the loss was not"):
        trainer.fit(x, -x, epochs=1, batch_size=4, verbose=False)
    assert numpy.isfinite(network[0].weight.numpy()).all()


def test_an_error_leaves_the_current_gpu_as_it_was(gpu):
    with pytest.raises(ValueError, match="matmul"):
        on_second(numpy.ones((2, 3))) @ on_second(numpy.ones((2, 3)))
    assert gpu.cuda.runtime.getDevice() == 0
    with gpu.cuda.Device(1):  # somebody else's choice: the first GPU works as well
        x = dl.tensor([1.0, 2.0], device="gpu:0")
        assert (x * x).sum().item() == 5
        assert (x * x).device == "gpu:0"
        assert gpu.cuda.runtime.getDevice() == 1
