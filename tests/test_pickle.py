"""What is pickled and deep-copied: networks, optimizers, Trainers, histories, compiled functions."""

import copy
import multiprocessing
import pickle
from concurrent.futures import ProcessPoolExecutor

import numpy
import pytest

import minidl as dl
from minidl import metrics
from minidl.errors import RecordingError
from minidl.training import History

WAYS = {
    "pickle": lambda x: pickle.loads(pickle.dumps(x)),
    "deepcopy": copy.deepcopy,
    "protocol 2": lambda x: pickle.loads(pickle.dumps(x, 2)),
}
X = numpy.random.default_rng(0).normal(size=(32, 3)).astype("float32")


@pytest.fixture(params=WAYS)
def twin_of(request):
    return WAYS[request.param]


class Tied(dl.Layer):
    def __init__(self):
        self.dense = dl.Dense(3, 2, seed=0)
        self.norm = dl.BatchNorm(2)
        self.bias = dl.Parameter(dl.zeros(3), learning_rate_factor=0.5, l2_factor=2.0)
        self.table = self.dense.weight
        self.dropout = dl.Dropout(0.5, seed=1)

    def forward(self, x):
        return dl.sigmoid(self.dropout(self.norm(self.dense(x))) @ self.table.T + self.bias)


@dl.compile
def compiled(x):
    return x * 2


def plain(x):
    return x * 3


def squared(prediction, target):
    return ((prediction - target) ** 2).mean()


def arrays(network):
    return list(network.state_dict().values())


def assert_same(a, b):
    for x, y in zip(arrays(a), arrays(b), strict=True):
        numpy.testing.assert_array_equal(x, y)


# --- Tensors --------------------------------------------------------------------------------------


def test_tensors_are_new_leaves(twin_of):
    x = dl.Parameter([1.0, 2.0], learning_rate_factor=0.5, l2_factor=3.0)
    (x * x).sum().backward()
    y = twin_of(x)
    assert isinstance(y, dl.Parameter)
    assert (y.tolist(), y.requires_grad, y.grad) == ([1, 2], True, None)
    assert (y.learning_rate_factor, y.l2_factor) == (0.5, 3.0)
    assert y.created_at > x.created_at
    assert not numpy.shares_memory(x.data, y.data)
    z = twin_of(x * 2)
    assert (z.tolist(), z.requires_grad, z.primitive) == ([2, 4], False, None)


def test_attributes_of_subclasses_come_along(twin_of):
    x = Named([1.0])
    x.name = "weight"
    assert twin_of(x).name == "weight"


class Named(dl.Parameter):
    """A Parameter with attributes of its own."""


def test_a_shallow_copy_has_memory_of_its_own():
    x = dl.tensor([1.0])
    y = copy.copy(x)
    y.assign([2.0])
    assert x.item() == 1


def test_memory_that_cannot_be_written_is_copied():
    buffers = []
    data = pickle.dumps(dl.tensor(X), 5, buffer_callback=buffers.append)
    x = pickle.loads(data, buffers=[bytes(buffer) for buffer in buffers])  # bytes are read-only
    x.assign(x * 0)
    assert not x.numpy().any()


def test_a_compiled_function_does_not_pickle_values():
    with pytest.raises(RecordingError, match="pickling"):
        dl.compile(lambda x: x * len(pickle.dumps(x)))(dl.ones(2))


def test_tensors_go_back_to_their_gpu(strict_gpu):
    assert pickle.loads(pickle.dumps(dl.tensor([1.0], device="gpu:1"))).device == "gpu:1"


# --- networks and what trains them ----------------------------------------------------------------


def test_networks_keep_sharing_modes_and_generators(twin_of):
    network = Tied().eval()
    twin = twin_of(network)
    assert twin.table is twin.dense.weight
    assert not twin.training
    assert twin.bias.l2_factor == 2.0
    assert_same(twin, network)
    outputs = [x.train()(X).numpy() for x in (network, twin)]
    numpy.testing.assert_array_equal(*outputs)
    twin.dense.weight.assign(twin.dense.weight * 0)
    assert network.table.numpy().any()


def train(network, optimizer, steps):
    for _ in range(steps):
        ((network(X) - X) ** 2).mean().backward()
        optimizer.step()


@pytest.mark.parametrize("kind", [dl.SGD, dl.Adam, dl.AdamW, dl.RMSProp])
def test_a_network_with_its_optimizer_goes_on_alike(kind, twin_of):
    network = Tied()
    optimizer = kind(network.parameters(), dl.schedules.Step(0.01, 2))
    train(network, optimizer, 3)
    twin, other = twin_of((network, optimizer))
    assert any(x is twin.bias for x in other.parameters)
    for pair in ((network, optimizer), (twin, other)):
        train(*pair, 3)
    assert_same(network, twin)


@pytest.mark.parametrize("kernels", ["numpy", "c"])
def test_a_used_trainer_goes_on_alike(kernels, twin_of):
    trainer = dl.Trainer(
        Tied(), dl.binary_cross_entropy, metrics=[dl.rmse, squared], device="cpu", seed=3,
        compile={"kernels": kernels},
    )  # fmt: skip
    y = (X > 0).astype("float32")
    trainer.fit(X, y, epochs=2, batch_size=8, verbose=False)
    twin = twin_of(trainer)
    assert twin.network is not trainer.network
    assert all(p is q for p, q in zip(twin.network.parameters(), twin.optimizer.parameters, strict=True))
    histories = [t.fit(X, y, epochs=2, batch_size=8, verbose=False) for t in (trainer, twin)]
    assert histories[0].steps == histories[1].steps
    assert_same(twin.network, trainer.network)


def test_histories(twin_of):
    trainer = dl.Trainer(dl.Dense(3, 1, seed=0), dl.mean_squared_error, device="cpu", seed=0)
    history = trainer.fit(X, X[:, :1], epochs=1, batch_size=8, verbose=False)
    assert isinstance(twin_of(history), History)
    assert twin_of(history).to_dict() == history.to_dict()


def test_metrics_are_found_by_name_or_made_anew(twin_of):
    assert twin_of(dl.rmse) is metrics.rmse
    own = dl.Metric(squared, name="own", larger_is_better=True)
    twin = twin_of(own)
    assert (twin.__name__, twin.larger_is_better) == ("own", True)
    assert twin(dl.tensor([3.0]), dl.tensor([1.0])).item() == 4
    rooted = twin_of(dl.Metric(squared, dl.sqrt, name="rooted"))
    assert rooted(dl.tensor([3.0]), dl.tensor([1.0])).item() == 2


def test_functions_among_layers_stay_what_they_are(twin_of):
    network = dl.Network([dl.Dense(3, 3), dl.relu, dl.Dense(3, 1)])
    twin = twin_of(network)
    assert twin[1] is dl.relu
    assert_same(twin, network)


# --- compiled functions ---------------------------------------------------------------------------


def test_decorated_functions_are_pickled_by_name(twin_of):
    compiled(dl.ones(2))
    assert twin_of(compiled) is compiled


def test_other_compiled_functions_are_their_plain_functions(twin_of):
    step = dl.compile(plain, kernels="numpy", threads=1)
    step(dl.ones(2))
    twin = twin_of(step)
    assert (twin.kernels, twin.threads, twin.programs) == ("numpy", 1, [])
    assert twin(dl.ones(2)).tolist() == [3, 3]


def test_a_local_function_cannot_be_pickled_compiled_or_not():
    def local(x):
        return x

    for function in (local, dl.compile(local)):
        with pytest.raises((AttributeError, pickle.PicklingError), match="local"):
            pickle.dumps(function)


# --- other processes ------------------------------------------------------------------------------


def in_another_process(network, optimizer, function, trainer):
    train(network, optimizer, 1)
    trainer.fit(X, X, epochs=1, batch_size=16, verbose=False)
    return network, function(dl.tensor(2.0)), trainer.network


@pytest.mark.slow
@pytest.mark.parametrize("method", multiprocessing.get_all_start_methods())
def test_they_are_arguments_and_results_of_processes(method):
    network = Tied()
    optimizer = dl.Adam(network.parameters(), 0.01)
    trainer = dl.Trainer(dl.Dense(3, 3, seed=0), dl.mean_squared_error, device="cpu", seed=0)
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context(method)) as pool:
        call = pool.submit(in_another_process, network, optimizer, compiled, trainer)
        there, number, fitted = call.result(timeout=120)
    assert number.item() == 4
    train(network, optimizer, 1)
    trainer.fit(X, X, epochs=1, batch_size=16, verbose=False)
    assert_same(there, network)
    assert_same(fitted, trainer.network)
