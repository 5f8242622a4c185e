"""100 training steps of whole networks in float64, beside the same formulas in PyTorch."""

import functools

import numpy
import pytest

import minidl as dl
from minidl.program.cpu.kernel_cache import compiler

torch = pytest.importorskip(
    "torch", reason="PyTorch, the oracle, is not installed: pip install -e '.[oracle]'"
)
pytestmark = pytest.mark.oracle

functional = torch.nn.functional
STEPS = 100
KERNELS = [
    None,
    "numpy",
    pytest.param("c", marks=pytest.mark.skipif(compiler() is None, reason="there is no C compiler here")),
]


@pytest.fixture(autouse=True)
def one_thread():
    """PyTorch's threads wait for each other at every small operation: for ever where others compute."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


class Convolutional:
    """Convolution, BatchNorm, pooling, Dense; images to classes."""

    def __init__(self):
        self.network = dl.Network(
            [
                dl.Conv2D(2, 3, 3, padding="same", seed=0),
                dl.BatchNorm(3),
                dl.ReLU(),
                dl.MaxPool2D(2),
                dl.Conv2D(3, 4, 3, stride=2, padding=1, bias=False, seed=1),
                dl.BatchNorm(4),
                dl.GELU(),
                dl.Flatten(),
                dl.Dense(2 * 2 * 4, 3, seed=2),
            ]
        )
        self.running = [f(n, dtype=torch.float64) for n in (3, 4) for f in (torch.zeros, torch.ones)]

    def draw(self, rng):
        return rng.normal(size=(6, 6, 6, 2)), rng.integers(0, 3, 6)

    def theirs(self, x, p):
        def convolution(x, weight, bias, **options):
            return functional.conv2d(x, weight.permute(3, 2, 0, 1), bias, **options)

        x = convolution(x.movedim(-1, 1), p["0.weight"], p["0.bias"], padding="same")
        x = functional.batch_norm(x, *self.running[:2], p["1.gain"], p["1.bias"], training=True)
        x = functional.max_pool2d(torch.relu(x), 2)
        x = convolution(x, p["4.weight"], None, stride=2, padding=1)
        x = functional.batch_norm(x, *self.running[2:], p["5.gain"], p["5.bias"], training=True)
        x = functional.gelu(x).movedim(1, -1).flatten(1)
        return x @ p["8.weight"] + p["8.bias"]

    def check(self, network):
        ours = [network[i] for i in (1, 5)]
        ours = [x for layer in ours for x in (layer.running_mean, layer.running_variance)]
        for one, other in zip(ours, self.running, strict=True):
            numpy.testing.assert_allclose(one.numpy(), other.numpy(), rtol=1e-7)


class Recurrent:
    """Embedding, LSTM, Dense; words to the next words."""

    def __init__(self):
        self.network = dl.Network(
            [
                dl.Embedding(7, 4, seed=0),
                dl.LSTM(4, 5, return_sequences=True, seed=1),
                dl.Dense(5, 7, seed=2),
            ]
        )
        self.lstm = torch.nn.LSTM(4, 5, batch_first=True).double()

    def draw(self, rng):
        return rng.integers(0, 7, (4, 6)), rng.integers(0, 7, (4, 6))

    def theirs(self, x, p):
        weights = {
            "weight_ih_l0": p["1.input_weight"].T,
            "weight_hh_l0": p["1.recurrent_weight"].T,
            "bias_ih_l0": p["1.bias"],
            "bias_hh_l0": torch.zeros_like(p["1.bias"]),
        }
        h, _ = torch.func.functional_call(self.lstm, weights, functional.embedding(x, p["0.weight"]))
        return h @ p["2.weight"] + p["2.bias"]

    def check(self, network):
        pass


class Attending:
    """A block of a GPT whose output is its embedding; words to the next words."""

    def __init__(self):
        class GPT(dl.Layer):
            def __init__(self):
                self.words, self.places = dl.Embedding(7, 8, seed=0), dl.Embedding(6, 8, seed=1)
                self.first, self.second = dl.LayerNorm(8), dl.LayerNorm(8)
                self.attention = dl.MultiHeadAttention(8, 2, causal=True, seed=2)
                self.hidden, self.output = dl.Dense(8, 16, seed=3), dl.Dense(16, 8, seed=4)

            def forward(self, x):
                h = self.words(x) + self.places(dl.arange(x.shape[1]))
                h = h + self.attention(self.first(h))
                h = h + self.output(dl.gelu(self.hidden(self.second(h))))
                return h @ self.words.weight.T

        self.network = GPT()

    def draw(self, rng):
        return rng.integers(0, 7, (4, 6)), rng.integers(0, 7, (4, 6))

    def theirs(self, x, p):
        def dense(x, name):
            return x @ p[f"{name}.weight"] + p[f"{name}.bias"]

        def heads(x):
            return x.unflatten(-1, (2, 4)).transpose(1, 2)

        h = p["words.weight"][x] + p["places.weight"][: x.shape[1]]
        z = functional.layer_norm(h, (8,), p["first.gain"], p["first.bias"])
        q, k, v = (heads(dense(z, f"attention.{name}")) for name in ("query", "key", "value"))
        a = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        h = h + dense(a.transpose(1, 2).flatten(2), "attention.output")
        z = functional.layer_norm(h, (8,), p["second.gain"], p["second.bias"])
        h = h + dense(functional.gelu(dense(z, "hidden")), "output")
        return h @ p["words.weight"].T

    def check(self, network):
        pass


def limited_adam(parameters):
    """Return a step of PyTorch's Adam whose gradients have a norm of at most 0.5 together."""
    optimizer = torch.optim.Adam(parameters, 0.003)

    def step(loss):
        optimizer.zero_grad()
        loss.backward()
        norm = torch.sqrt(sum((p.grad**2).sum() for p in parameters))
        for p in parameters:
            p.grad *= 0.5 / max(norm, 0.5)
        optimizer.step()

    return step


@functools.cache
def trained_by_pytorch(kind):
    """Return the model, its mini-batches, the loss of each step and the weights at the end."""
    model, rng = kind(), numpy.random.default_rng(0)
    named = model.network.astype("float64").named_parameters()
    weights = {name: torch.tensor(p.numpy(), requires_grad=True) for name, p in named}
    step = limited_adam(list(weights.values()))
    batches, losses = [model.draw(rng) for _ in range(STEPS)], []
    for x, target in batches:
        logits, target = model.theirs(torch.tensor(x), weights).flatten(0, -2), torch.tensor(target).flatten()
        loss = functional.cross_entropy(logits, target, label_smoothing=0.1)
        step(loss)
        losses.append(loss.item())
    return model, batches, losses, {name: p.detach().numpy() for name, p in weights.items()}


@pytest.mark.parametrize("kernels", KERNELS)
@pytest.mark.parametrize("kind", [Convolutional, Recurrent, Attending])
def test_100_steps(kind, kernels):
    reference, batches, losses, weights = trained_by_pytorch(kind)
    network = kind().network.astype("float64")
    optimizer = dl.Adam(network.parameters(), 0.003, clip_global_norm=0.5)

    def step(x, target):
        logits = network(x)
        loss = dl.softmax_cross_entropy(logits, target, label_smoothing=0.1)
        loss.backward()
        optimizer.step()
        return loss

    step = dl.compile(kernels=kernels)(step) if kernels else step
    for i, (x, target) in enumerate(batches):
        loss = step(dl.tensor(x), dl.tensor(target))
        assert loss.item() == pytest.approx(losses[i], rel=1e-7), f"step {i}"
    for name, parameter in network.named_parameters():
        numpy.testing.assert_allclose(parameter.numpy(), weights[name], rtol=1e-6, atol=1e-8, err_msg=name)
    reference.check(network)
