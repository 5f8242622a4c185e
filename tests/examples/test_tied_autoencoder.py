"""The example runs from its command line, writes its files, and says early what it cannot do."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import numpy
import pytest

import minidl as dl
from tests.distributed import mpi
from tests.distributed.mpi import needs_mpi

EXAMPLE = Path(__file__).parents[2] / "examples" / "tied_autoencoder.py"


def example_module():
    specification = importlib.util.spec_from_file_location("tied_autoencoder", EXAMPLE)
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


def run(*arguments):
    return subprocess.run([sys.executable, EXAMPLE, *map(str, arguments)], capture_output=True, text=True)


@pytest.fixture(scope="module")
def short_run(idx_folder, tmp_path_factory):
    out = tmp_path_factory.mktemp("out")
    return run("--data", idx_folder, "--epochs", 2, "--out", out), out


def test_the_network_is_the_originals():
    network = example_module().build_network(0)
    assert network.parameter_count() == 1_002_148
    shapes = {name: p.shape for name, p in network.named_parameters()}
    assert shapes == {
        "encoder.1.weight": (784, 784),
        "encoder.1.bias": (784,),
        "encoder.3.weight": (784, 392),
        "encoder.3.bias": (392,),
        "encoder.5.weight": (392, 196),
        "encoder.5.bias": (196,),
        "biases.0": (784,),
        "biases.1": (784,),
        "biases.2": (392,),
    }
    assert {p.l2_factor for name, p in network.named_parameters() if "bias" in name} == {0}
    assert network(dl.zeros((2, 28, 28, 1))).shape == (2, 28, 28, 1)


def test_defaults_are_the_originals():
    options = example_module().parse_arguments([])
    assert (options.epochs, options.batch_size, options.learning_rate, options.l2) == (30, 128, 1e-3, 1e-4)
    assert (options.start, options.loss, options.schedule, options.shift) == ("random", "bce", "constant", 0)
    assert options.optimizer == "adam"


def test_what_is_given_counts_more_than_the_recipe():
    options = example_module().parse_arguments(["--recipe", "best", "--l2", "0.5"])
    assert (options.start, options.loss, options.epochs, options.l2) == ("pca", "mse", 30, 0.5)


@pytest.fixture(scope="module")
def digits():
    train, test = dl.data.digits(train=600, test=200)
    return train.images, test.images


def test_started_at_pca_the_network_is_a_linear_code_between_clip_and_sigmoid(digits):
    """Its code is that of the components, shifted to be positive, and its output their sigmoid."""
    train, test = digits
    module = example_module()
    network = module.build_network(0)
    module.start_at_pca(network, train, gain=9.0)
    found = dl.data.pca(train, 196)
    codes = network.encoder(dl.tensor(train)).numpy()
    numpy.testing.assert_allclose(
        codes, 3 * (found.encode(train) - found.encode(train).min(axis=0)), atol=1e-4
    )
    linear = found.reconstruct(train)
    expected = 1 / (1 + numpy.exp(-(9 * numpy.maximum(linear, 0) - 4.5)))
    numpy.testing.assert_allclose(network(dl.tensor(train)).numpy(), expected, atol=1e-4)
    assert dl.rmse(network(dl.tensor(test)), test).item() < 0.1


def test_started_at_rbms_the_weights_are_those_of_good_features(digits):
    """One layer up and down again, as an RBM does it, comes closer to the images than their mean."""
    train, _ = digits
    module = example_module()
    network = module.build_network(0)
    module.start_at_rbms(network, train, seed=0, epochs=10)
    layer, bias = network.dense[0], network.biases[0]
    x = train.reshape(len(train), -1)
    hidden = dl.sigmoid(dl.tensor(x) @ layer.weight + layer.bias)
    y = dl.sigmoid(hidden @ layer.weight.T + bias).numpy()
    assert ((y - x) ** 2).sum() < 0.8 * ((x.mean(axis=0) - x) ** 2).sum()
    assert all(numpy.isfinite(p.numpy()).all() for p in network.parameters())


@pytest.mark.parametrize(
    "options", [None, {"kernels": "numpy"}, {"kernels": "c"}], ids=["eager", "numpy", "c"]
)
def test_adam_along_components_is_adam_of_a_network_that_sees_components(rng, options):
    """Its steps are those of Adam with the weights, and so the inputs, in the other basis."""
    basis = numpy.linalg.qr(rng.normal(size=(6, 6)))[0].astype("float32")
    x = rng.normal(size=(9, 6)).astype("float32")
    weights = [rng.normal(size=shape).astype("float32") for shape in ((6, 6), (6, 4), (4, 3), (6,))]
    turned = [basis.T @ weights[0] @ basis, basis.T @ weights[1], weights[2], weights[3]]

    def train(values, make_optimizer, basis):
        parameters = [dl.Parameter(x) for x in values]
        square, tall, small, bias = parameters
        optimizer = make_optimizer(parameters)

        def step(x):
            hidden = dl.tanh(x @ square @ basis.T + bias)  # pixels, whatever the weights are
            loss = ((dl.tanh(hidden @ basis @ tall) @ small) ** 2).sum()
            loss.backward()
            optimizer.step()
            return loss

        step = dl.compile(**options)(step) if options else step
        losses = [step(dl.tensor(x @ basis)).item() for _ in range(12)]
        return losses, [p.numpy() for p in parameters]

    make = lambda parameters: example_module().PrincipalAdam(parameters, 0.05, basis)
    losses, ours = train(weights, make, numpy.eye(6, dtype="float32"))
    expected, theirs = train(turned, lambda parameters: dl.Adam(parameters, 0.05), basis)
    numpy.testing.assert_allclose(losses, expected, rtol=2e-3)
    back = [basis @ theirs[0] @ basis.T, basis @ theirs[1], theirs[2], theirs[3]]
    for mine, other, start in zip(ours, back, weights, strict=True):
        numpy.testing.assert_allclose(mine, other, atol=2e-3)
        assert abs(mine - start).max() > 0.1


def test_adam_along_components_goes_where_the_parameters_go(rng, gpu_name):
    """Made on the CPU, it trains on the GPU that the network is moved to, and gives what the CPU gives."""
    basis = numpy.linalg.qr(rng.normal(size=(6, 6)))[0].astype("float32")
    x, results = rng.normal(size=(5, 6)).astype("float32"), []
    for device in ("cpu", gpu_name):
        network = dl.Dense(6, 6, seed=0)
        optimizer = example_module().PrincipalAdam(network.parameters(), 0.05, basis)
        network.to(device)
        for _ in range(3):
            (network(dl.tensor(x, device=device)) ** 2).sum().backward()
            optimizer.step()
        results.append(network.to("cpu").weight.numpy())
    numpy.testing.assert_allclose(results[1], results[0], atol=1e-5)


def test_a_shift_moves_whole_pixels(rng):
    images = rng.uniform(size=(40, 7, 6, 1)).astype("float32")
    shifted = example_module().shift(images, 2, rng)
    moves = set()
    for image, moved in zip(images[..., 0], shifted[..., 0], strict=True):
        padded = numpy.pad(image, 2)
        found = [
            (down, right)
            for down in range(5)
            for right in range(5)
            if numpy.array_equal(padded[down : down + 7, right : right + 6], moved)
        ]
        assert len(found) == 1
        moves.update(found)
    assert len(moves) > 12  # of 25


@pytest.mark.slow
def test_the_best_recipe_runs_and_the_same_seed_gives_the_same(idx_folder, tmp_path):
    results = []
    for name in ("a", "b"):
        result = run("--data", idx_folder, "--recipe", "best", "--epochs", 2, "--out", tmp_path / name)
        assert result.returncode == 0, result.stderr
        results.append(json.loads((tmp_path / name / "metrics.json").read_text()))
    assert results[0]["test_rmse"] == results[1]["test_rmse"]
    assert results[0]["pca_test_rmse"] > 0


def test_a_short_run_writes_every_file(short_run):
    result, out = short_run
    assert result.returncode == 0, result.stderr
    device = dl.devices.resolve("auto")
    assert f"training 1,002,148 parameters on 400 observations, on {device}" in result.stdout
    metrics = json.loads((out / "metrics.json").read_text())
    assert result.stdout.splitlines()[-1] == f"test RMSE {metrics['test_rmse']:.4f}"
    history = json.loads((out / "history.json").read_text())
    assert len(history["steps"]["loss"]) == 2 * 3  # the last mini-batch, which is not full, is dropped
    assert history["validation"]["step"] == [6]
    assert metrics["best_validation_loss"] == min(history["validation"]["loss"])
    for picture in ("reconstructions.png", "training.png"):
        assert (out / picture).read_bytes().startswith(b"\x89PNG")
    assert example_module().build_network(1).load(out / "weights.safetensors")


@needs_mpi
def test_several_processes_write_once_what_one_would(short_run, idx_folder, tmp_path):
    arguments = ("--data", idx_folder, "--epochs", 2, "--out", tmp_path, "--distributed")
    printed = mpi.run(2, EXAMPLE, *arguments, module=("-m", "mpi4py")).splitlines()
    assert len(printed) == len(short_run[0].stdout.splitlines())
    mine, theirs = (json.loads((out / "metrics.json").read_text()) for out in (short_run[1], tmp_path))
    assert theirs["test_rmse"] == pytest.approx(mine["test_rmse"], rel=1e-4)


@pytest.mark.slow
def test_the_same_seed_gives_the_same_weights_and_eager_nearly_the_same(short_run, idx_folder, tmp_path):
    for name, more in (("again", ()), ("eager", ("--eager",)), ("other", ("--seed", 1))):
        result = run("--data", idx_folder, "--epochs", 2, "--out", tmp_path / name, *more)
        assert result.returncode == 0, result.stderr
    weights = {
        name: example_module().build_network(0).load(path / "weights.safetensors").state_dict()
        for name, path in (("first", short_run[1]), *((n, tmp_path / n) for n in ("again", "eager", "other")))
    }
    for name, array in weights["first"].items():
        numpy.testing.assert_array_equal(weights["again"][name], array)
        numpy.testing.assert_allclose(weights["eager"][name], array, atol=2e-3)
    assert (weights["other"]["encoder.1.weight"] != weights["first"]["encoder.1.weight"]).any()


def test_bad_arguments_are_refused_before_training(idx_folder, tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("")
    cases = [
        (("--data", idx_folder, "--out", blocked / "inside"), "error: "),
        (("--data", tmp_path / "nowhere", "--out", tmp_path), "nowhere"),
        (("--data", "a", "b", "c", "--out", tmp_path), "--data takes"),
        (("--data", idx_folder, "--device", "tpu", "--out", tmp_path), "unknown device 'tpu'"),
        (("--data", idx_folder, "--batch-size", "0", "--out", tmp_path), "batch_size"),
    ]
    for arguments, message in cases:
        result = run(*arguments)
        assert result.returncode == 1
        assert message in result.stderr
        assert "epoch" not in result.stdout


def test_nan_in_the_data_is_refused(idx_folder, tmp_path, monkeypatch):
    module = example_module()
    train, test = dl.data.read_idx_folder(idx_folder)
    train.images[7, 3, 4] = numpy.nan
    monkeypatch.setattr(dl.data, "digits", lambda: (train, test))
    with pytest.raises(ValueError, match=r"the training images.*7, 3, 4"):
        module.main(["--epochs", "1", "--out", str(tmp_path)])
