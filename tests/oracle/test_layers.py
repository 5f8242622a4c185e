"""Convolutions, normalisations, recurrences, attention and embeddings against PyTorch, in float64.

Values, gradients of inputs and Parameters, state, and 20 steps of training, eager and compiled.
"""

import numpy
import pytest

import minidl as dl

torch = pytest.importorskip(
    "torch", reason="PyTorch, the oracle, is not installed: pip install -e '.[oracle]'"
)
pytestmark = [
    pytest.mark.oracle,
    pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths"),
]
nn = torch.nn


def array(x):
    return x.numpy() if isinstance(x, dl.Tensor) else x.detach().numpy()


def agree(ours, theirs, tolerance=1e-10):
    numpy.testing.assert_allclose(array(ours), array(theirs), rtol=tolerance, atol=tolerance)


# --- the same weights in both, and how each of theirs is read in our layout -------------------------


def plain(x):
    return x


def transposed(x):
    return x.T


def convolution(x):
    """Return (*window, in, out) from (out, in, *window)."""
    return x.movedim((1, 0), (-2, -1))


def layout(kind, ours, theirs):
    """Return triples: our Parameter, theirs, and the function from their layout to ours."""
    if kind in ("batch", "layer", "group"):
        return [(ours.gain, theirs.weight, plain), (ours.bias, theirs.bias, plain)]
    if kind == "rms":
        return [(ours.gain, theirs.weight, plain)]
    if kind == "convolution":
        return [(ours.weight, theirs.weight, convolution), (ours.bias, theirs.bias, plain)]
    if kind == "recurrent":
        triples = [
            (ours.input_weight, theirs.weight_ih_l0, transposed),
            (ours.recurrent_weight, theirs.weight_hh_l0, transposed),
            (ours.bias, theirs.bias_ih_l0, plain),
        ]
        if isinstance(ours, dl.GRU):
            hidden = ours.hidden_features
            triples.append((ours.recurrent_bias, theirs.bias_hh_l0, lambda x: x[2 * hidden :]))
        return triples
    if kind == "prelu":
        return [(ours.slope, theirs.weight, plain)]
    return [(ours.weight, theirs.weight, plain)]


def alike(kind, ours, theirs, rng):
    """Give both the same random weights."""
    ours.astype("float64")
    theirs.double()
    with torch.no_grad():
        for name, parameter in theirs.named_parameters():
            parameter.copy_(torch.tensor(rng.normal(scale=0.5, size=tuple(parameter.shape))))
            if "bias_hh" in name:  # we have one bias where PyTorch has the sum of two
                parameter[: 2 * ours.hidden_features if isinstance(ours, dl.GRU) else None] = 0
        for parameter, reference, convert in layout(kind, ours, theirs):
            parameter.assign(dl.tensor(convert(reference).detach().numpy()))


def channels_first(module):
    # contiguous: the gradient of PyTorch 2.13's GroupNorm crashes on small strided inputs
    return lambda x: module(x.movedim(-1, 1).contiguous()).movedim(1, -1)


CASES = {
    "Conv1D": ("convolution", lambda: dl.Conv1D(3, 4, 3, 2, 1), lambda: nn.Conv1d(3, 4, 3, 2, 1), (2, 9, 3)),
    "Conv2D": (
        "convolution",
        lambda: dl.Conv2D(4, 6, (3, 2), (1, 2), padding=(2, 1), dilation=(2, 1), groups=2),
        lambda: nn.Conv2d(4, 6, (3, 2), (1, 2), (2, 1), (2, 1), 2),
        (2, 7, 6, 4),
    ),
    "Conv2D same": (
        "convolution",
        lambda: dl.Conv2D(2, 3, (4, 3), padding="same"),
        lambda: nn.Conv2d(2, 3, (4, 3), padding="same"),
        (2, 7, 6, 2),
    ),
    "DepthwiseConv2D": (
        "convolution",
        lambda: dl.DepthwiseConv2D(3, 3, multiplier=2, padding=1),
        lambda: nn.Conv2d(3, 6, 3, padding=1, groups=3),
        (2, 5, 6, 3),
    ),
    "ConvTranspose2D": (
        "convolution",
        lambda: dl.ConvTranspose2D(4, 6, 3, 2, padding=1, dilation=2, groups=2),
        lambda: nn.ConvTranspose2d(4, 6, 3, 2, 1, groups=2, dilation=2),
        (2, 4, 5, 4),
    ),
    "MaxPool2D": (None, lambda: dl.MaxPool2D(3, 2, 1), lambda: nn.MaxPool2d(3, 2, 1), (2, 7, 6, 3)),
    "AveragePool2D": (
        None,
        lambda: dl.AveragePool2D(3, 2, 1),
        lambda: nn.AvgPool2d(3, 2, 1, count_include_pad=False),
        (2, 7, 6, 3),
    ),
    "UpSample2D": (None, lambda: dl.UpSample2D(3), lambda: nn.Upsample(scale_factor=3), (2, 3, 4, 2)),
    "UpSample2D bilinear": (
        None,
        lambda: dl.UpSample2D((3, 2), "bilinear"),
        lambda: nn.Upsample(scale_factor=(3, 2), mode="bilinear"),
        (2, 3, 4, 2),
    ),
    "BatchNorm": (
        "batch",
        lambda: dl.BatchNorm(3, 0.2),
        lambda: nn.BatchNorm2d(3, momentum=0.2),
        (4, 3, 2, 3),
    ),
    "GroupNorm": ("group", lambda: dl.GroupNorm(2, 4), lambda: nn.GroupNorm(2, 4), (3, 3, 2, 4)),
    "LayerNorm": ("layer", lambda: dl.LayerNorm(5), lambda: nn.LayerNorm(5), (3, 4, 5)),
    "RMSNorm": ("rms", lambda: dl.RMSNorm(5), lambda: nn.RMSNorm(5, 1e-5), (3, 4, 5)),
    "PReLU": ("prelu", lambda: dl.PReLU(3), lambda: nn.PReLU(3), (2, 4, 4, 3)),
    "ELU": (None, lambda: dl.ELU(0.7), lambda: nn.ELU(0.7), (4, 5)),
    "GELU": (None, dl.GELU, nn.GELU, (4, 5)),
    "SiLU": (None, dl.SiLU, nn.SiLU, (4, 5)),
    "LeakyReLU": (None, lambda: dl.LeakyReLU(0.2), lambda: nn.LeakyReLU(0.2), (4, 5)),
    "Softplus": (None, dl.Softplus, nn.Softplus, (4, 5)),
}
ALREADY_LAST = {"LayerNorm", "RMSNorm"}


def both(name, rng):
    kind, make, make_theirs, shape = CASES[name]
    ours, module = make(), make_theirs()
    if kind is not None:
        alike(kind, ours, module, rng)
    theirs = module if len(shape) < 3 or name in ALREADY_LAST else channels_first(module)
    return ours, module, theirs, layout(kind, ours, module) if kind is not None else [], shape


@pytest.mark.parametrize("name", CASES)
def test_values_gradients_and_state(name, rng):
    ours, module, theirs, triples, shape = both(name, rng)
    for training in (True, False):
        ours.train(training)
        module.train(training)
        x = rng.normal(size=shape)
        a, b = dl.tensor(x, requires_grad=True), torch.tensor(x, requires_grad=True)
        y, z = ours(a), theirs(b)
        agree(y, z)
        g = rng.normal(size=y.shape)
        leaves = [a, *(ours for ours, _, _ in triples)]
        references = [b, *(reference for _, reference, _ in triples)]
        gradients = dl.grad(y, leaves, gradient=dl.tensor(g))
        expected = torch.autograd.grad(z, references, torch.tensor(g))
        agree(gradients[0], expected[0])
        for ours_, theirs_, (_, _, convert) in zip(gradients[1:], expected[1:], triples, strict=True):
            agree(ours_, convert(theirs_))
    if name == "BatchNorm":
        agree(ours.running_mean, module.running_mean)
        agree(ours.running_variance, module.running_var)


TRAINED = [name for name, (kind, *_) in CASES.items() if kind is not None]


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("name", TRAINED)
def test_20_steps(name, compiled, rng):
    ours, module, theirs, triples, shape = both(name, rng)
    optimizer = dl.SGD(ours.parameters(), 0.1)
    other = torch.optim.SGD(module.parameters(), 0.1, momentum=0.9)

    def step(x):
        loss = (dl.tanh(ours(x)) ** 2).mean()
        loss.backward()
        optimizer.step()
        return loss

    step = dl.compile(step) if compiled else step
    for x in rng.normal(size=(20, *shape)):
        loss = step(dl.tensor(x))
        other.zero_grad()
        reference = (torch.tanh(theirs(torch.tensor(x))) ** 2).mean()
        reference.backward()
        other.step()
        agree(loss, reference, 1e-9)
    for parameter, reference, convert in triples:
        agree(parameter, convert(reference), 1e-9)


# --- recurrent layers -----------------------------------------------------------------------------

RECURRENT = {"RNN": (dl.RNN, nn.RNN), "LSTM": (dl.LSTM, nn.LSTM), "GRU": (dl.GRU, nn.GRU)}


@pytest.mark.parametrize("ragged", [False, True])
@pytest.mark.parametrize("name", RECURRENT)
def test_recurrent_layers(name, ragged, rng):
    make, make_theirs = RECURRENT[name]
    ours = make(3, 4, return_sequences=True, return_state=True)
    module = make_theirs(3, 4, batch_first=True)
    alike("recurrent", ours, module, rng)
    x, state = rng.normal(size=(3, 6, 3)), [rng.normal(size=(3, 4)) for _ in ours.states]
    lengths = numpy.array([4, 6, 1])
    a, b = dl.tensor(x, requires_grad=True), torch.tensor(x, requires_grad=True)
    mask = {"mask": numpy.arange(6) < lengths[:, None]} if ragged else {}
    y, *final = ours(a, *map(dl.tensor, state), **mask)
    their_state = tuple(torch.tensor(part)[None] for part in state)
    packed = nn.utils.rnn.pack_padded_sequence(b, lengths, True, enforce_sorted=False) if ragged else b
    z, end = module(packed, their_state if name == "LSTM" else their_state[0])
    z = nn.utils.rnn.pad_packed_sequence(z, True)[0] if ragged else z
    agree(y, z)
    for part, reference in zip(final, end if name == "LSTM" else [end], strict=True):
        agree(part, reference[0])
    g = rng.normal(size=y.shape)
    triples = layout("recurrent", ours, module)
    gradients = dl.grad(y, [a, *(p for p, _, _ in triples)], gradient=dl.tensor(g))
    expected = torch.autograd.grad(z, [b, *(r for _, r, _ in triples)], torch.tensor(g))
    agree(gradients[0], expected[0])
    for ours_, theirs_, (_, _, convert) in zip(gradients[1:], expected[1:], triples, strict=True):
        agree(ours_, convert(theirs_))


@pytest.mark.parametrize("compiled", [False, True])
def test_20_steps_of_an_lstm_that_carries_its_state(compiled, rng):
    ours, module = dl.LSTM(3, 4, return_sequences=True, stateful=True), nn.LSTM(3, 4, batch_first=True)
    alike("recurrent", ours, module, rng)
    module.bias_hh_l0.requires_grad_(False)
    ours.reset_state(2)
    optimizer = dl.SGD(ours.parameters(), 0.1)
    other = torch.optim.SGD([p for p in module.parameters() if p.requires_grad], 0.1, momentum=0.9)

    def step(x):
        loss = (ours(x) ** 2).mean()
        loss.backward()
        optimizer.step()
        return loss

    step = dl.compile(step) if compiled else step
    state = None
    for x in rng.normal(size=(20, 2, 5, 3)):
        loss = step(dl.tensor(x))
        other.zero_grad()
        z, state = module(torch.tensor(x), state)
        state = tuple(part.detach() for part in state)
        reference = (z**2).mean()
        reference.backward()
        other.step()
        agree(loss, reference, 1e-9)
    agree(ours.carried["h"], state[0][0], 1e-9)
    agree(ours.carried["c"], state[1][0], 1e-9)


# --- attention and embeddings ---------------------------------------------------------------------


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("padded", [False, True])
def test_the_attention_function(causal, padded, rng):
    q, k, v = (rng.normal(size=(2, 3, 5, 4)) for _ in range(3))
    mask = rng.uniform(size=(2, 1, 5, 5)) < 0.6
    mask[..., 0] = True  # PyTorch gives NaN where nothing may be attended to
    mask = mask if padded else None
    allowed = numpy.tri(5, dtype=bool) & (mask if padded else True) if causal else mask
    ours = [dl.tensor(x, requires_grad=True) for x in (q, k, v)]
    theirs = [torch.tensor(x, requires_grad=True) for x in (q, k, v)]
    y = dl.attention(*ours, mask=mask, causal=causal)
    reference_mask = None if allowed is None else torch.tensor(allowed)
    z = nn.functional.scaled_dot_product_attention(*theirs, attn_mask=reference_mask)
    agree(y, z)
    g = rng.normal(size=y.shape)
    for gradient, expected in zip(
        dl.grad(y, ours, gradient=dl.tensor(g)), torch.autograd.grad(z, theirs, torch.tensor(g)), strict=True
    ):
        agree(gradient, expected)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("cross", [False, True])
def test_multi_head_attention(cross, padded, causal, rng):
    if cross and causal:
        pytest.skip("PyTorch has no causal mask of its own for queries and keys of two lengths")
    ours, module = dl.MultiHeadAttention(8, 2, causal, seed=0), nn.MultiheadAttention(8, 2, batch_first=True)
    ours.astype("float64")
    module.double()
    dense = (ours.query, ours.key, ours.value)
    for layer in (*dense, ours.output):
        layer.bias.assign(rng.normal(size=8))
    with torch.no_grad():
        module.in_proj_weight.copy_(torch.tensor(numpy.concatenate([d.weight.numpy().T for d in dense])))
        module.in_proj_bias.copy_(torch.tensor(numpy.concatenate([d.bias.numpy() for d in dense])))
        module.out_proj.weight.copy_(torch.tensor(ours.output.weight.numpy().T))
        module.out_proj.bias.copy_(torch.tensor(ours.output.bias.numpy()))
    x = rng.normal(size=(3, 4, 8))
    memory = rng.normal(size=(3, 6, 8)) if cross else x
    valid = numpy.arange(memory.shape[1]) < numpy.array([[2], [4], [1]]) if padded else None
    a, b = dl.tensor(x, requires_grad=True), torch.tensor(x, requires_grad=True)
    m, n = (dl.tensor(memory), torch.tensor(memory)) if cross else (a, b)
    y = ours(a, m, mask=valid)
    z, _ = module(
        b,
        n,
        n,
        key_padding_mask=None if valid is None else torch.tensor(~valid),
        attn_mask=torch.tensor(~numpy.tri(4, dtype=bool)) if causal else None,
    )
    agree(y, z)
    g = rng.normal(size=y.shape)
    gradients = dl.grad(y, [a, *(d.weight for d in dense)], gradient=dl.tensor(g))
    expected = torch.autograd.grad(z, [b, module.in_proj_weight], torch.tensor(g))
    agree(gradients[0], expected[0])
    agree(dl.concatenate([part.T for part in gradients[1:]]), expected[1])


@pytest.mark.parametrize("padding_index", [None, 2])
def test_embedding(padding_index, rng):
    ours, module = dl.Embedding(6, 3, padding_index), nn.Embedding(6, 3, padding_index)
    alike("embedding", ours, module, rng)
    with torch.no_grad():
        if padding_index is not None:
            module.weight[padding_index] = 0
    x = rng.integers(0, 6, (4, 5))
    y, z = ours(x), module(torch.tensor(x))
    agree(y, z)
    g = rng.normal(size=y.shape)
    (y * g).sum().backward()
    (z * torch.tensor(g)).sum().backward()
    agree(ours.weight.grad, module.weight.grad)
