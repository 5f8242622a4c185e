"""The parts of the example are what they say; it runs, writes its files, and refuses bad arguments."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import numpy
import pytest
import scipy.io

import minidl as dl

EXAMPLE = Path(__file__).parents[2] / "examples" / "deep_autoencoder.py"


@pytest.fixture(scope="module")
def module():
    specification = importlib.util.spec_from_file_location("deep_autoencoder", EXAMPLE)
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


def run(*arguments):
    return subprocess.run([sys.executable, EXAMPLE, *map(str, arguments)], capture_output=True, text=True)


@pytest.mark.parametrize("tied", [False, True])
def test_unrolled_rbms_go_up_and_down_by_their_own_means(module, rng, tied):
    rbms = [dl.RBM(9, 6, seed=0), dl.RBM(6, 3, hidden="gaussian", seed=1)]
    for rbm in rbms:
        for parameter in rbm.parameters():
            parameter.assign(rng.normal(size=parameter.shape).astype("float32"))
    network = module.DeepAutoencoder([9, 6, 3], dl.sigmoid, tied, "glorot_uniform", 0)
    network.unroll(rbms)
    x = dl.tensor(rng.uniform(size=(5, 9)).astype("float32"))
    expected = rbms[0].reconstruct(rbms[1].reconstruct(rbms[1](rbms[0](x))))
    numpy.testing.assert_allclose(dl.sigmoid(network(x)).numpy(), expected.numpy(), rtol=1e-4)
    untied = 2 * (9 * 6 + 6 * 3) + (6 + 3) + (9 + 6)
    assert network.parameter_count() == (untied - (9 * 6 + 6 * 3) if tied else untied)


def test_logistic_pca_costs_less_than_pca(module, rng):
    """On binary data that a linear code of logits made, in cross-entropy after clipping."""
    logits = 3 * rng.normal(size=(300, 2)) @ rng.normal(size=(2, 20))
    x = (rng.uniform(size=logits.shape) < 1 / (1 + numpy.exp(-logits))).astype("float32")
    cost = lambda y: -numpy.log(numpy.where(x[200:] == 1, y, 1 - y).clip(0.01, 1)).sum(axis=1).mean()
    made = module.logistic_pca(x[:200], x[200:], 2)
    linear = dl.data.pca(x[:200], 2).reconstruct(x[200:], 0, 1)
    assert made.shape == (100, 20)
    assert cost(made) < cost(linear)


def test_curves_are_ink_on_paper(module):
    images = module.draw_curves(20, 0)
    assert images.shape == (20, 784)
    assert images.dtype == numpy.float32
    assert images.min() >= 0
    assert 0.8 < images.max(axis=1).min() <= images.max() <= 1
    numpy.testing.assert_array_equal(images, module.draw_curves(20, 0))


def test_faces_are_divided_by_persons_and_normal(module, rng, tmp_path):
    faces = rng.integers(0, 256, (4096, 400), dtype="uint8")
    scipy.io.savemat(tmp_path / "faces.mat", {"faces": faces})
    train, test = module.cut_faces(tmp_path / "faces.mat", 0)
    assert (train.shape, test.shape) == ((12_000, 625), (2_000, 625))
    for patches in (train, test):
        numpy.testing.assert_allclose(patches.mean(axis=1), 0, atol=1e-5)
        numpy.testing.assert_allclose(patches.std(axis=1), 1, atol=1e-4)


def test_the_measure_is_the_papers(module):
    assert module.error(numpy.zeros((2, 3)), numpy.array([[1.0, 1, 1], [2, 0, 0]])) == 3.5


@pytest.mark.slow
@pytest.mark.parametrize("optimizer", ["adam", "cg"])
def test_a_short_run_writes_every_file(idx_folder, tmp_path, optimizer):
    few = ("--rbm-epochs", 1, "--epochs", 1, "--code", 2, "--optimizer", optimizer)
    result = run("--data", idx_folder, *few, "--starts", "rbm", "relu-tied", "--out", tmp_path)
    assert result.returncode == 0, result.stderr
    errors = json.loads((tmp_path / "metrics.json").read_text())["squared error of a test image"]
    assert set(errors) == {"rbm", "relu-tied", "logistic PCA 2", "PCA 2", "mean image"}
    assert errors["PCA 2"] < errors["mean image"]
    assert (tmp_path / "reconstructions.png").read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "relu-tied.safetensors").is_file()


def test_bad_arguments_are_refused_before_training(tmp_path):
    for arguments, message in (
        (("--code", 0, "--data", "curves", "--epochs", 0), "at least 1"),
        (("--data", tmp_path / "no"), "no folder"),
    ):
        result = run(*arguments, "--out", tmp_path)
        assert result.returncode == 1
        assert message in result.stderr
