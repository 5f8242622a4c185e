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


def test_logistic_pca_is_closer_to_curves_than_pca(module):
    train, test = module.draw_curves(1000, 0), module.draw_curves(500, 1)
    made = module.logistic_pca(train, test, 6, 0)
    assert made.shape == test.shape
    assert module.error(made, test) < module.error(dl.data.pca(train, 6).reconstruct(test, 0, 1), test)


def test_curves_are_ink_on_paper(module):
    images = module.draw_curves(20, 0)
    assert images.shape == (20, 784)
    assert images.dtype == numpy.float32
    assert images.min() >= 0
    assert 0.8 < images.max(axis=1).min() <= images.max() <= 1
    numpy.testing.assert_array_equal(images, module.draw_curves(20, 0))


def test_curves_are_as_hard_for_pca_as_the_papers(module):
    """PCA with 18 components leaves 5.90 of the paper's."""
    found = dl.data.pca(module.draw_curves(3000, 0), 18)
    test = module.draw_curves(1000, 1)
    assert module.error(found.reconstruct(test), test) == pytest.approx(5.9, abs=0.3)


def test_patches_are_the_face_turned_and_made_smaller(module):
    """Where a pixel of a patch comes from: cut from faces whose values are their rows, and their columns."""
    planes = numpy.mgrid[:64, :64].astype("float32")
    cut = [module.cut_faces(plane[None], 200, numpy.random.default_rng(0)) for plane in planes]
    assert cut[0].shape == (200, 625)
    assert cut[0].dtype == numpy.float32
    row, column = (patches.reshape(200, 25, 25) for patches in cut)
    assert 0 <= min(row.min(), column.min()) < max(row.max(), column.max()) <= 63
    step = [[numpy.diff(x, axis=axis)[:, :24, :24] for axis in (1, 2)] for x in (row, column)]
    numpy.testing.assert_allclose(step[0][0], step[1][1], atol=1e-4)  # a turn: no shear, no mirror
    numpy.testing.assert_allclose(step[0][1], -step[1][0], atol=1e-4)
    size = numpy.hypot(step[0][0], step[0][1])
    numpy.testing.assert_allclose(size, size[:, :1, :1] + numpy.zeros((24, 24)), atol=1e-4)
    assert 1.4 - 1e-4 <= size.min() < 1.42 < 1.78 < size.max() <= 1.8 + 1e-4


def test_faces_are_divided_by_persons_and_have_variance_1(module, rng, tmp_path):
    faces = rng.integers(0, 100, (4096, 400), dtype="uint8")
    faces[:, 300:] += 100  # persons 31 to 40
    scipy.io.savemat(tmp_path / "faces.mat", {"faces": faces})
    kind, train, test, labels = module.load_data(str(tmp_path / "faces.mat"), 0)
    assert (kind, train.shape, test.shape, labels) == ("faces", (30_000, 625), (5_000, 625), None)
    assert train.max() < test.min()
    both = numpy.concatenate([train, test])
    numpy.testing.assert_allclose(both.mean(axis=0), 0, atol=1e-4)
    assert both.std() == pytest.approx(1, abs=1e-4)


def test_files_of_curves_are_read(module, rng, tmp_path):
    parts = {"bdata": rng.uniform(size=(6, 784)), "bdatatest": rng.uniform(size=(4, 784))}
    scipy.io.savemat(tmp_path / "curves.mat", parts)
    kind, train, test, _ = module.load_data(str(tmp_path / "curves.mat"), 0)
    assert (kind, train.dtype) == ("curves", numpy.float32)
    numpy.testing.assert_array_equal(train, parts["bdata"].astype("float32"))
    numpy.testing.assert_array_equal(test, parts["bdatatest"].astype("float32"))
    scipy.io.savemat(tmp_path / "other.mat", {"x": parts["bdata"]})
    with pytest.raises(ValueError, match=r"neither 'faces' .* nor 'bdata'"):
        module.load_data(str(tmp_path / "other.mat"), 0)


def test_the_measure_is_the_papers(module):
    assert module.error(numpy.zeros((2, 3)), numpy.array([[1.0, 1, 1], [2, 0, 0]])) == 3.5


FEW = ("--rbm-epochs", 1, "--epochs", 2, "--code", 2)


@pytest.mark.slow
@pytest.mark.parametrize("optimizer", ["adam", "sgd", "cg"])
def test_a_short_run_writes_every_file(idx_folder, tmp_path, optimizer):
    options = ("--data", idx_folder, *FEW, "--optimizer", optimizer, "--starts", "rbm", "relu-tied")
    result = run(*options, "--out", tmp_path)
    assert result.returncode == 0, result.stderr
    errors = json.loads((tmp_path / "metrics.json").read_text())["test"]
    assert set(errors) == {"rbm", "relu-tied", "logistic PCA 2", "PCA 2", "mean image"}
    assert errors["PCA 2"] < errors["mean image"]
    assert (tmp_path / "reconstructions.png").read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "relu-tied.safetensors").is_file()


def parse(module, *arguments):
    options = module.parse_arguments([*map(str, arguments)])
    options.out.mkdir(parents=True, exist_ok=True)
    return options


def test_rbms_that_are_there_are_not_trained_again(module, rng, tmp_path, capsys):
    images = rng.uniform(size=(200, 12)).astype("float32")
    options = parse(module, "--rbm-epochs", 2, "--out", tmp_path)
    first = module.pretrain(images, [12, 8, 4, 2], "images", options)
    assert capsys.readouterr().out.count("squared error") == 3
    (tmp_path / "rbm-8-4.safetensors").unlink()  # as if it had been interrupted there
    second = module.pretrain(images, [12, 8, 4, 2], "images", options)
    assert capsys.readouterr().out.startswith("RBM 8-4: squared error")
    for one, other in zip(first, second, strict=True):
        numpy.testing.assert_array_equal(one.weight.numpy(), other.weight.numpy())


@pytest.mark.parametrize("optimizer", ["adam", "cg"])
def test_an_interrupted_fine_tuning_goes_on(module, rng, tmp_path, optimizer):
    images = rng.uniform(size=(1500, 12)).astype("float32")

    def weight(folder, epochs):
        options = parse(module, "--epochs", epochs, "--optimizer", optimizer, "--out", folder)
        network, _ = module.train("random", ("images", images), [12, 8, 2], None, options)
        return network.encoder[0].weight.numpy()

    expected = weight(tmp_path / "whole", 3)
    folder = tmp_path / "interrupted"
    if optimizer == "adam":  # its learning rate falls over all epochs: drop what came after the second one
        weight(folder, 3)
        sorted((folder / "random").glob("*.safetensors"))[-1].unlink()
    else:
        assert (weight(folder, 2) != expected).any()
    numpy.testing.assert_array_equal(weight(folder, 3), expected)


def test_other_settings_need_another_folder(module, tmp_path):
    module.prepare_folder(parse(module, "--starts", "rbm", "--out", tmp_path))
    module.prepare_folder(parse(module, "--starts", "relu", "--out", tmp_path))
    with pytest.raises(ValueError, match="a run with other settings: choose another --out"):
        module.prepare_folder(parse(module, "--seed", 1, "--out", tmp_path))


def test_bad_arguments_are_refused_before_training(tmp_path):
    for arguments, message in (
        (("--code", 0), "--code must be at least 1"),
        (("--images", 0), "--images must be at least 1"),
        (("--data", tmp_path / "no"), "no folder"),
    ):
        result = run(*arguments, "--out", tmp_path)
        assert result.returncode == 1
        assert message in result.stderr
    assert list(tmp_path.iterdir()) == []  # so that the right arguments are not refused as others
