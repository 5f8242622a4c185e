"""Layers, losses, whole networks and 200 steps of each optimizer against PyTorch, in float64."""

import numpy
import pytest

import minidl as dl
from minidl.optimizers import LBFGS
from tests.networks import TiedAutoencoder

torch = pytest.importorskip(
    "torch", reason="PyTorch, the oracle, is not installed: pip install -e '.[oracle]'"
)
pytestmark = pytest.mark.oracle

functional = torch.nn.functional
STEPS = 200


def agree(ours, theirs, tolerance=1e-11):
    numpy.testing.assert_allclose(ours.numpy(), theirs.detach().numpy(), rtol=tolerance, atol=1e-12)


# --- layers ---------------------------------------------------------------------------------------


def linear(dense):
    """Return PyTorch's layer with the same weights; it keeps the weight transposed."""
    module = torch.nn.Linear(dense.in_features, dense.out_features, bias=dense.bias is not None).double()
    with torch.no_grad():
        module.weight.copy_(torch.tensor(dense.weight.numpy().T))
        if dense.bias is not None:
            module.bias.copy_(torch.tensor(dense.bias.numpy()))
    return module


LAYERS = {
    "ReLU": (dl.ReLU, torch.nn.ReLU),
    "Sigmoid": (dl.Sigmoid, torch.nn.Sigmoid),
    "Tanh": (dl.Tanh, torch.nn.Tanh),
    "Softmax": (dl.Softmax, lambda: torch.nn.Softmax(dim=-1)),
    "Flatten": (dl.Flatten, torch.nn.Flatten),
    "Reshape": (lambda: dl.Reshape(4, 3), lambda: torch.nn.Unflatten(1, (4, 3))),
    "Dropout": (lambda: dl.Dropout(0.3).eval(), lambda: torch.nn.Dropout(0.3).eval()),
}


@pytest.mark.parametrize("name", LAYERS)
def test_layers(name, rng):
    ours, theirs = (make() for make in LAYERS[name])
    x = rng.normal(scale=3, size=(5, 12) if name == "Reshape" else (5, 3, 4))
    a, b = dl.tensor(x, requires_grad=True), torch.tensor(x, requires_grad=True)
    y, z = ours(a), theirs(b)
    agree(y, z)
    g = rng.normal(size=y.shape)
    agree(dl.grad(y, a, gradient=dl.tensor(g)), torch.autograd.grad(z, b, torch.tensor(g))[0])


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("lead", [(5,), (2, 3)])
def test_dense(bias, lead, rng):
    dense = dl.Dense(4, 3, bias=bias, seed=0).astype("float64")
    module, x = linear(dense), rng.normal(size=(*lead, 4))
    a, b = dl.tensor(x, requires_grad=True), torch.tensor(x, requires_grad=True)
    y, z = dl.sin(dense(a)), torch.sin(module(b))
    agree(y, z)
    y.sum().backward()
    z.sum().backward()
    agree(a.grad, b.grad)
    agree(dense.weight.grad.T, module.weight.grad)
    if bias:
        agree(dense.bias.grad, module.bias.grad)


@pytest.mark.parametrize("dropped", [0.2, 0.5])
def test_dropout_passes_gradients_as_values(dropped, rng):
    """The draws differ, so PyTorch's formula is applied to our mask."""
    x = rng.normal(size=(6, 7))
    a, b = dl.tensor(x, requires_grad=True), torch.tensor(x, requires_grad=True)
    y = dl.Dropout(dropped, seed=0)(a)
    z = b * torch.tensor(y.numpy() != 0) / (1 - dropped)
    agree(y, z)
    agree(dl.grad((y * y).sum(), a), torch.autograd.grad((z * z).sum(), b)[0])


# --- losses ---------------------------------------------------------------------------------------

REDUCTIONS = ["mean", "sum", "none"]


def unit(rng):
    return rng.uniform(0.02, 0.98, (5, 4)), rng.uniform(0, 1, (5, 4))


def free(rng):
    return rng.normal(scale=2, size=(5, 4)), rng.normal(scale=2, size=(5, 4))


def with_targets(rng):
    return rng.normal(scale=5, size=(5, 4)), rng.uniform(0, 1, (5, 4))


def with_classes(rng):
    return rng.normal(scale=5, size=(5, 4)), rng.integers(0, 4, 5)


def with_probabilities(rng):
    return rng.normal(scale=5, size=(5, 4)), rng.dirichlet(numpy.ones(4), 5)


CLASS_WEIGHT = numpy.array([0.5, 3.0, 2.0, 1.0])


def with_some_ignored(rng):
    return rng.normal(scale=2, size=(5, 4)), numpy.array([1, -100, 3, 0, -100])


def on_the_second_axis(rng):
    return rng.normal(scale=2, size=(5, 4, 3)), rng.integers(0, 4, (5, 3))


def log_probabilities(rng):
    z = rng.normal(size=(5, 4))
    return z - numpy.log(numpy.exp(z).sum(axis=1, keepdims=True)), rng.dirichlet(numpy.ones(4), 5)


LOSSES = {
    "binary_cross_entropy": (unit, dl.binary_cross_entropy, functional.binary_cross_entropy),
    "with_logits": (
        with_targets,
        dl.binary_cross_entropy_with_logits,
        functional.binary_cross_entropy_with_logits,
    ),
    "from_sigmoid": (
        with_targets,
        lambda z, t, **options: dl.binary_cross_entropy(dl.sigmoid(z), t, **options),
        functional.binary_cross_entropy_with_logits,
    ),
    "mean_squared_error": (free, dl.mean_squared_error, functional.mse_loss),
    "mean_absolute_error": (free, dl.mean_absolute_error, functional.l1_loss),
    "huber": (
        free,
        lambda p, t, **options: dl.huber(p, t, delta=0.7, **options),
        lambda p, t, **options: functional.huber_loss(p, t, delta=0.7, **options),
    ),
    "class weights, smoothing, ignored": (
        with_some_ignored,
        lambda z, t, **options: dl.softmax_cross_entropy(
            z, t, class_weight=CLASS_WEIGHT, label_smoothing=0.2, ignore_index=-100, **options
        ),
        lambda z, t, **options: functional.cross_entropy(
            z, t, weight=torch.tensor(CLASS_WEIGHT), label_smoothing=0.2, ignore_index=-100, **options
        ),
    ),
    "another axis": (
        on_the_second_axis,
        lambda z, t, **options: dl.softmax_cross_entropy(z, t, axis=1, **options),
        functional.cross_entropy,
    ),
    "smooth probabilities": (
        with_probabilities,
        lambda z, t, **options: dl.softmax_cross_entropy(z, t, label_smoothing=0.2, **options),
        lambda z, t, **options: functional.cross_entropy(z, t, label_smoothing=0.2, **options),
    ),
    "hinge of classes": (with_classes, dl.hinge, functional.multi_margin_loss),
    "cosine": (
        free,
        dl.cosine_distance,
        lambda p, t, **options: functional.cosine_embedding_loss(p, t, torch.ones(5), **options),
    ),
    "triplet": (
        free,
        lambda p, t, **options: dl.triplet(p, t, t[::-1].copy(), margin=0.5, **options),
        lambda p, t, **options: functional.triplet_margin_loss(p, t, t.flip(0), margin=0.5, eps=0, **options),
    ),
    "class_numbers": (with_classes, dl.softmax_cross_entropy, functional.cross_entropy),
    "class_probabilities": (with_probabilities, dl.softmax_cross_entropy, functional.cross_entropy),
}


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("name", LOSSES)
def test_losses(name, reduction, rng):
    draw, ours, theirs = LOSSES[name]
    prediction, target = draw(rng)
    a, b = dl.tensor(prediction, requires_grad=True), torch.tensor(prediction, requires_grad=True)
    y, z = ours(a, target, reduction=reduction), theirs(b, torch.tensor(target), reduction=reduction)
    agree(y, z)
    g = rng.normal(size=y.shape)
    agree(dl.grad(y, a, gradient=dl.tensor(g)), torch.autograd.grad(z, b, torch.tensor(g))[0])


@pytest.mark.parametrize("reduction", ["sum", "batchmean"])
def test_kl_divergence(reduction, rng):
    prediction, target = log_probabilities(rng)
    a, b = dl.tensor(prediction, requires_grad=True), torch.tensor(prediction, requires_grad=True)
    y = dl.kl_divergence(a, target, reduction)
    z = functional.kl_div(b, torch.tensor(target), reduction=reduction)
    agree(y, z)
    agree(dl.grad(y, a), torch.autograd.grad(z, b)[0])


# --- networks and optimizers ----------------------------------------------------------------------


class TorchAutoencoder(torch.nn.Module):
    """The tied autoencoder as one would write it in PyTorch."""

    def __init__(self, ours):
        super().__init__()
        self.dense = torch.nn.ModuleList([linear(dense) for dense in ours.dense])
        self.biases = torch.nn.ParameterList(
            [torch.nn.Parameter(torch.tensor(bias.numpy())) for bias in ours.biases]
        )

    def forward(self, x):
        for dense in self.dense:
            x = torch.relu(dense(x))
        for dense, bias in reversed(list(zip(self.dense[1:], self.biases[1:], strict=True))):
            x = torch.relu(x @ dense.weight + bias)
        return torch.sigmoid(x @ self.dense[0].weight + self.biases[0])

    def in_our_order(self):
        """Return the parameters as the other network lists them, with its layout."""
        pairs = [parameter for dense in self.dense for parameter in (dense.weight.T, dense.bias)]
        return [*pairs, *self.biases]


def networks(seed=0):
    ours = TiedAutoencoder(12, 8, 5, seed=seed).astype("float64")
    return ours, TorchAutoencoder(ours)


def test_the_tied_autoencoder(rng):
    ours, theirs = networks()
    x = rng.uniform(size=(6, 12))
    y, z = (
        dl.binary_cross_entropy(ours(dl.tensor(x)), x),
        functional.binary_cross_entropy(theirs(torch.tensor(x)), torch.tensor(x)),
    )
    agree(y, z)
    y.backward()
    z.backward()
    for dense, module in zip(ours.dense, theirs.dense, strict=True):
        agree(dense.weight.grad.T, module.weight.grad)
        agree(dense.bias.grad, module.bias.grad)
    for bias, other in zip(ours.biases, theirs.biases, strict=True):
        agree(bias.grad, other.grad)


def all_weights(parameters):
    """L2 in PyTorch is for every parameter alike."""
    for parameter in parameters:
        parameter.l2_factor = 1.0
    return parameters


OPTIMIZERS = {
    "SGD": (lambda p: dl.SGD(p, 0.1, momentum=0), lambda p: torch.optim.SGD(p, 0.1)),
    "momentum": (lambda p: dl.SGD(p, 0.05, momentum=0.9), lambda p: torch.optim.SGD(p, 0.05, momentum=0.9)),
    "nesterov": (
        lambda p: dl.SGD(p, 0.05, momentum=0.8, nesterov=True),
        lambda p: torch.optim.SGD(p, 0.05, momentum=0.8, nesterov=True),
    ),
    "SGD with l2": (
        lambda p: dl.SGD(all_weights(p), 0.05, l2=1e-2),
        lambda p: torch.optim.SGD(p, 0.05, momentum=0.9, weight_decay=1e-2),
    ),
    "RMSProp": (
        lambda p: dl.RMSProp(p, 0.001, decay=0.9),
        lambda p: torch.optim.RMSprop(p, 0.001, alpha=0.9),
    ),
    "Adam": (lambda p: dl.Adam(p, 0.003), lambda p: torch.optim.Adam(p, 0.003)),
    "Adam with l2": (
        lambda p: dl.Adam(all_weights(p), 0.003, l2=1e-3),
        lambda p: torch.optim.Adam(p, 0.003, weight_decay=1e-3),
    ),
    "AdamW": (
        lambda p: dl.AdamW(all_weights(p), 0.003, weight_decay=0.1),
        lambda p: torch.optim.AdamW(p, 0.003, weight_decay=0.1),
    ),
    "AMSGrad": (
        lambda p: dl.Adam(p, 0.003, beta2=0.9, amsgrad=True),
        lambda p: torch.optim.Adam(p, 0.003, betas=(0.9, 0.9), amsgrad=True),
    ),
    "Nadam": (lambda p: dl.Nadam(p, 0.003), lambda p: torch.optim.NAdam(p, 0.003)),
    "Adagrad": (
        lambda p: dl.Adagrad(p, 0.03, initial=0.1),
        lambda p: torch.optim.Adagrad(p, 0.03, initial_accumulator_value=0.1),
    ),
    "groups": (
        lambda p: dl.AdamW(
            [
                {"parameters": all_weights(p)[:4], "learning_rate": 0.001, "weight_decay": 0.3},
                {"parameters": p[4:]},
            ],
            0.003,
            weight_decay=0.1,
        ),
        lambda p: torch.optim.AdamW(
            [{"params": p[:4], "lr": 0.001, "weight_decay": 0.3}, {"params": p[4:]}], 0.003, weight_decay=0.1
        ),
    ),
    "Adam with a schedule": (
        lambda p: dl.Adam(p, dl.schedules.Exponential(0.01, 0.98)),
        lambda p: torch.optim.Adam(p, 0.01),
    ),
}


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_200_steps(name, compiled, rng):
    ours, theirs = networks()
    optimizer, other = (
        make(p)
        for make, p in zip(OPTIMIZERS[name], (ours.parameters(), list(theirs.parameters())), strict=True)
    )
    schedule = torch.optim.lr_scheduler.ExponentialLR(other, 0.98) if "schedule" in name else None
    batches = rng.uniform(size=(STEPS, 6, 12))

    def step(x):
        loss = dl.mean_squared_error(ours(x), x)
        loss.backward()
        optimizer.step()
        return loss

    step = dl.compile(step) if compiled else step
    for x in batches:
        step(dl.tensor(x))
        other.zero_grad()
        functional.mse_loss(theirs(torch.tensor(x)), torch.tensor(x)).backward()
        other.step()
        if schedule is not None:
            schedule.step()
    for parameter, reference in zip(ours.parameters(), theirs.in_our_order(), strict=True):
        agree(parameter, reference, 1e-8)


@pytest.mark.parametrize("norm", [0.02, 100.0])
def test_200_steps_with_gradients_clipped_by_their_common_norm(norm, rng):
    ours, theirs = networks()
    optimizer = dl.SGD(ours.parameters(), 0.1, momentum=0, clip_global_norm=norm)
    other = torch.optim.SGD(theirs.parameters(), 0.1)
    for x in rng.uniform(size=(STEPS, 6, 12)):
        dl.mean_squared_error(ours(dl.tensor(x)), x).backward()
        optimizer.step()
        other.zero_grad()
        functional.mse_loss(theirs(torch.tensor(x)), torch.tensor(x)).backward()
        # clip_grad_norm_ divides by the norm plus 1e-6: that is written out here without the 1e-6
        total = torch.sqrt(sum((p.grad**2).sum() for p in theirs.parameters()))
        for p in theirs.parameters():
            p.grad *= norm / max(total, norm)
        other.step()
    for parameter, reference in zip(ours.parameters(), theirs.in_our_order(), strict=True):
        agree(parameter, reference, 1e-8)


def test_lbfgs_ends_where_pytorchs_does(rng):
    """Their line searches differ, so their paths do; on a strictly convex loss the end is the same."""
    x, t = rng.normal(size=(40, 5)), rng.integers(0, 3, 40)
    dense = dl.Dense(5, 3, seed=0).astype("float64")
    module = linear(dense)
    optimizer = LBFGS(all_weights(dense.parameters()), l2=0.1, gradient_tolerance=1e-10, loss_tolerance=0)
    other = torch.optim.LBFGS(
        module.parameters(),
        max_iter=500,
        tolerance_grad=1e-10,
        tolerance_change=0,
        line_search_fn="strong_wolfe",
    )

    def closure():
        loss = dl.softmax_cross_entropy(dense(dl.tensor(x)), t)
        loss.backward()
        return loss

    def their_closure():
        other.zero_grad()
        loss = functional.cross_entropy(module(torch.tensor(x)), torch.tensor(t))
        loss = loss + 0.05 * sum((p**2).sum() for p in module.parameters())
        loss.backward()
        return loss

    optimizer.minimize(closure)
    other.step(their_closure)
    agree(dense.weight.T, module.weight, 1e-6)
    agree(dense.bias, module.bias, 1e-6)
