import numpy
import pytest
import safetensors.numpy

import minidl as dl
from tests.interop import zoo

torch = pytest.importorskip("torch", reason="PyTorch is not installed (the extra `oracle`)")
pytestmark = pytest.mark.oracle
nn = torch.nn
F = nn.functional


# --- what PyTorch's users would write -------------------------------------------------------------


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(12, 8), nn.ReLU(), nn.Linear(8, 5), nn.ReLU())
        self.dense = nn.ModuleList([self.encoder[0], self.encoder[2]])
        self.biases = nn.ParameterList([nn.Parameter(torch.zeros(12)), nn.Parameter(torch.zeros(8))])

    def forward(self, x):
        z = self.encoder(x)
        z = torch.relu(F.linear(z, self.dense[1].weight.T, self.biases[1]))
        return torch.sigmoid(F.linear(z, self.dense[0].weight.T, self.biases[0]))


class Last(nn.Module):
    """Channels last around a module of channels first."""

    def __init__(self, module):
        super().__init__()
        self.module = module

    def forward(self, x):
        y = self.module(x.movedim(-1, 1))
        return y.movedim(1, -1) if y.ndim > 2 else y


class Residual(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(channels)

    def forward(self, x):
        return torch.relu(x + self.norm2(self.conv2(torch.relu(self.norm1(self.conv1(x))))))


class Recurrent(nn.Module):
    def __init__(self, rnn, out, whole):
        super().__init__()
        self.rnn, self.whole = rnn, whole
        self.out = nn.Identity() if out is None else nn.Linear(*out)

    def forward(self, x):
        y, _ = self.rnn(x)
        return self.out(y if self.whole else y[:, -1])


class Block(nn.Module):
    def __init__(self, features, heads, causal):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(features), nn.LayerNorm(features)
        self.attention = nn.MultiheadAttention(features, heads, batch_first=True)
        self.up, self.down = nn.Linear(features, 2 * features), nn.Linear(2 * features, features)
        self.causal = causal

    def forward(self, x):
        z = self.norm1(x)
        later = torch.ones(x.shape[1], x.shape[1], dtype=bool).triu(1) if self.causal else None
        x = x + self.attention(z, z, z, attn_mask=later, need_weights=False)[0]
        return x + self.down(F.gelu(self.up(self.norm2(x))))


class GPT(nn.Module):
    def __init__(self):
        super().__init__()
        self.words = nn.Embedding(11, 8)
        self.places = nn.Parameter(torch.zeros(6, 8))
        self.blocks = nn.Sequential(Block(8, 2, True), Block(8, 2, True))
        self.norm = nn.LayerNorm(8, bias=False)
        self.head = nn.Linear(8, 11, bias=False)
        self.head.weight = self.words.weight

    def forward(self, x):
        return self.head(self.norm(self.blocks(self.words(x) + self.places)))


def second_layer(name):
    """Return the second layer of PyTorch's GRU as a module of its own."""
    layer, part = ("1", name.replace("_l1", "_l0")) if name.endswith("_l1") else ("0", name)
    return f"{layer}.{part.removeprefix('rnn.')}"


#: The module, and the arguments of load_torch() where names differ.
MODULES = {
    "mlp": (lambda: nn.Sequential(nn.Linear(6, 9), nn.Tanh(), nn.Linear(9, 4, bias=False)), {}),
    "tied autoencoder": (Tied, {}),
    "cnn": (
        lambda: Last(
            nn.Sequential(
                nn.Conv2d(2, 4, (3, 2), (1, 2), padding=1),
                nn.BatchNorm2d(4),
                nn.ReLU(),
                nn.MaxPool2d(2),
                nn.Flatten(),
                nn.Linear(32, 3),
            )
        ),
        {"prefix": "module.", "flattened": {"5": (4, 2, 4)}},
    ),
    "residual": (
        lambda: Last(
            nn.Sequential(nn.Conv2d(3, 4, 3), Residual(4), Residual(4), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        ),
        {"prefix": "module."},
    ),
    "separable": (
        lambda: Last(
            nn.Sequential(
                nn.Conv2d(4, 8, 3, groups=4), nn.SiLU(), nn.Conv2d(8, 6, 1, groups=2), nn.GroupNorm(3, 6)
            )
        ),
        {"prefix": "module."},
    ),
    "decoder": (
        lambda: nn.Sequential(
            nn.Linear(5, 24),
            nn.Unflatten(1, (2, 3, 4)),
            Last(
                nn.Sequential(
                    nn.ConvTranspose2d(4, 6, 3, 2, padding=1),
                    nn.ELU(),
                    nn.ConvTranspose2d(6, 2, 3, groups=2),
                    nn.Sigmoid(),
                )
            ),
        ),
        {"rename": {"2.module.0": "2", "2.module.2": "4"}},
    ),
    "audio": (
        lambda: Last(
            nn.Sequential(nn.Conv1d(3, 6, 5, 2, padding=2), nn.PReLU(6), nn.Conv1d(6, 4, 3, dilation=2))
        ),
        {"prefix": "module."},
    ),
    "lstm": (
        lambda: Recurrent(nn.LSTM(4, 6, batch_first=True), (6, 3), False),
        {"rename": {"rnn": "0", "out": "1"}},
    ),
    "rnn": (
        lambda: Recurrent(nn.RNN(4, 6, batch_first=True), (6, 3), True),
        {"rename": {"rnn": "0", "out": "1"}},
    ),
    "stacked gru": (
        lambda: Recurrent(nn.GRU(4, 5, num_layers=2, batch_first=True), None, True),
        {"rename": second_layer},
    ),
    "transformer": (lambda: nn.Sequential(Block(8, 2, False), nn.RMSNorm(8, eps=1e-5)), {}),
    "gpt": (GPT, {"rename": {"head": "words"}}),
}


def both(name):
    """Return both networks, with different random weights, in evaluation mode, and an input."""
    ours, x = zoo.make(name)
    make_module, options = MODULES[name]
    module = make_module().eval()
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for tensor in module.state_dict().values():
            if tensor.dtype == torch.float32:
                tensor.copy_(torch.rand(tensor.shape, generator=generator) - 0.3)
        for part in module.modules():
            if hasattr(part, "running_var") and part.running_var is not None:
                part.running_var.abs_().add_(0.5)
    return ours, module, options, x


def assert_equal_outputs(ours, module, x):
    with torch.no_grad():
        expected = module(torch.tensor(x.numpy())).numpy()
    numpy.testing.assert_allclose(ours(x).numpy(), expected, rtol=1e-4, atol=2e-6)


# --- the zoo --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", MODULES)
def test_weights_from_pytorch_give_equal_outputs(name, tmp_path):
    ours, module, options, x = both(name)
    report = ours.load_torch(module.state_dict(), **options)
    assert not report.missing
    assert not report.unexpected
    assert sorted(report.loaded) == sorted(ours.state_dict())
    assert_equal_outputs(ours, module, x)
    other, _ = zoo.make(name)
    torch.save(module.state_dict(), tmp_path / "weights.pt")
    other.load_torch(tmp_path / "weights.pt", **options)
    numpy.testing.assert_array_equal(other(x).numpy(), ours(x).numpy())


@pytest.mark.parametrize("name", MODULES)
def test_files_of_safetensors_that_pytorch_wrote(name, tmp_path):
    from safetensors.torch import save_model

    ours, module, options, x = both(name)
    save_model(module, tmp_path / "weights.safetensors")  # which stores what is shared once
    ours.load_torch(tmp_path / "weights.safetensors", **options)
    assert_equal_outputs(ours, module, x)


def to_theirs(name, state):
    """Return a state dict with the names of the module in MODULES."""
    back = {
        "cnn": lambda x: f"module.{x}",
        "residual": lambda x: f"module.{x}",
        "separable": lambda x: f"module.{x}",
        "audio": lambda x: f"module.{x}",
        "decoder": lambda x: {"2": "2.module.0", "4": "2.module.2"}.get(x[0], x[0]) + x[1:],
        "lstm": lambda x: {"0": "rnn", "1": "out"}[x[0]] + x[1:],
        "rnn": lambda x: {"0": "rnn", "1": "out"}[x[0]] + x[1:],
        "stacked gru": lambda x: "rnn." + x[2:].replace("_l0", f"_l{x[0]}"),
    }.get(name, lambda x: x)
    state = {back(key): x for key, x in state.items()}
    return state | ({"head.weight": state["words.weight"]} if name == "gpt" else {})


@pytest.mark.parametrize("ending", [".pt", ".safetensors"])
@pytest.mark.parametrize("name", MODULES)
def test_weights_for_pytorch_give_equal_outputs(name, ending, tmp_path):
    from safetensors.torch import load_file

    ours, module, options, x = both(name)
    path = tmp_path / f"weights{ending}"
    ours.save_torch(path, every_name=True, flattened=options.get("flattened"))
    state = torch.load(path) if ending == ".pt" else load_file(path)
    module.load_state_dict(to_theirs(name, state))
    assert_equal_outputs(ours, module, x)


def test_shared_weights_are_stored_once_for_pytorch(tmp_path):
    from safetensors.torch import load_model

    ours, module, _, x = both("tied autoencoder")
    path = tmp_path / "weights.safetensors"
    ours.save_torch(path)
    assert "dense.0.weight" not in safetensors.numpy.load_file(path)
    load_model(module, path)
    assert_equal_outputs(ours, module, x)


# --- what does not fit ----------------------------------------------------------------------------


def test_wrong_and_foreign_names_are_refused_and_nothing_is_changed():
    ours, module, _, _ = both("mlp")
    before = ours.state_dict()
    state = module.state_dict()
    state["extra.weight"] = state.pop("2.weight")
    with pytest.raises(ValueError, match=r"missing: 2\.weight") as refusal:
        ours.load_torch(state)
    assert "unexpected: extra.weight" in str(refusal.value)
    for name, x in ours.state_dict().items():
        numpy.testing.assert_array_equal(x, before[name])
    report = ours.load_torch(state, strict=False)
    assert report.missing == ["2.weight"]
    assert report.unexpected == ["extra.weight"]
    assert "2 Tensors loaded" in str(report)


def test_differing_copies_of_a_shared_weight_are_refused():
    ours, module, _, _ = both("tied autoencoder")
    state = {name: x.clone() for name, x in module.state_dict().items()}
    ours.load_torch(state)  # equal copies
    state["dense.0.weight"][0, 0] += 1
    with pytest.raises(ValueError, match=r"two different arrays for encoder\.0\.weight"):
        ours.load_torch(state)


def test_renamed_copies_that_differ_are_refused():
    ours, module, options, _ = both("gpt")
    state = {name: x.clone() for name, x in module.state_dict().items()}
    state["head.weight"] += 1
    with pytest.raises(ValueError, match=r"words\.weight: words\.weight and head\.weight"):
        ours.load_torch(state, **options)


def test_a_module_itself_is_taken():
    ours, module, _, x = both("mlp")
    ours.load_torch(module)
    assert_equal_outputs(ours, module, x)


def test_recurrent_modules_without_biases():
    ours = dl.LSTM(4, 6)
    module = nn.LSTM(4, 6, bias=False, batch_first=True)
    ours.load_torch(module)
    x = dl.random.normal((2, 3, 4), generator=dl.Generator(0))
    numpy.testing.assert_allclose(
        ours(x).numpy(), module(torch.tensor(x.numpy()))[0][:, -1].detach(), rtol=1e-4, atol=1e-6
    )


def test_attention_with_projections_of_their_own():
    ours = dl.MultiHeadAttention(6, 2, seed=0)
    state = {}
    for mine, theirs in (("query", "q"), ("key", "k"), ("value", "v"), ("output", "o")):
        layer = getattr(ours, mine)
        state |= {f"{theirs}.weight": layer.weight.numpy().T, f"{theirs}.bias": layer.bias.numpy()}
    other = dl.MultiHeadAttention(6, 2, seed=1)
    other.load_torch(state, rename={"q": "query", "k": "key", "v": "value", "o": "output"})
    for name, x in other.state_dict().items():
        numpy.testing.assert_array_equal(x, ours.state_dict()[name])


def test_bfloat16_becomes_float32(tmp_path):
    from safetensors.torch import save_file

    module = nn.Linear(3, 2).bfloat16()
    ours = dl.Dense(3, 2)
    save_file(module.state_dict(), tmp_path / "weights.safetensors")
    for source in (tmp_path / "weights.safetensors", module):
        ours.weight.assign(dl.zeros((3, 2)))
        ours.load_torch(source)
        numpy.testing.assert_array_equal(ours.weight.numpy(), module.weight.detach().float().numpy().T)


def test_files_of_the_other_order_of_axes_are_refused(tmp_path):
    path = tmp_path / "weights.safetensors"
    layer = dl.Dense(3, 3)
    layer.save(path)
    with pytest.raises(ValueError, match=r"read it with load\(\)"):
        layer.load_torch(path)
    layer.save_torch(path)
    with pytest.raises(ValueError, match=r"load_torch\(\)"):
        layer.load(path)


def test_flattened_names_are_checked(tmp_path):
    ours, module, options, _ = both("cnn")
    for flattened, problem in (({"4": (4, 2, 4)}, "no Dense layer"), ({"5": (4, 4, 4)}, "takes images")):
        with pytest.raises(ValueError, match=problem):
            ours.load_torch(module, **{**options, "flattened": flattened})


def test_what_is_no_state_dict_is_refused(tmp_path):
    layer = dl.Dense(3, 2)
    torch.save([1, 2], tmp_path / "list.pt")
    with pytest.raises(TypeError, match="no state dict"):
        layer.load_torch(tmp_path / "list.pt")
    with pytest.raises(TypeError, match="weight is list"):
        layer.load_torch({"weight": [1.0], "bias": [2.0]})
    with pytest.raises(FileNotFoundError, match=r"nowhere\.pt"):
        layer.load_torch(tmp_path / "nowhere.pt")
    with pytest.raises(TypeError, match="load_torch takes a path, a state dict or a module, got list"):
        layer.load_torch([1.0])
    torch.save(nn.Linear(3, 2), tmp_path / "module.pt")  # a module is code
    (tmp_path / "code.pt").write_bytes(b"cos\ngetcwd\n(tR.")
    (tmp_path / "empty.pt").write_bytes(b"")
    for name in ("module", "code", "empty"):
        with pytest.raises(ValueError, match=f"{name}.pt' is no complete file of tensors alone"):
            layer.load_torch(tmp_path / f"{name}.pt")
    with pytest.raises(ValueError, match="no MultiHeadAttention has"):
        dl.MultiHeadAttention(4, 2).load_torch({"in_proj_weight": numpy.zeros((10, 4))})
