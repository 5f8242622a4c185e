"""PCA against the eigenvectors of the covariance, and on MNIST against the paper."""

import numpy
import pytest

import minidl as dl
from tests.data.test_idx import SHARED


@pytest.mark.parametrize("shape", [(50, 8), (6, 20), (30, 2, 3)])
def test_components_are_eigenvectors_of_the_covariance(rng, shape):
    x = rng.normal(size=shape) * rng.uniform(0.5, 3, shape[1:]) + 4
    found = dl.data.pca(x, 4)
    flat = x.reshape(len(x), -1)
    covariance = numpy.cov(flat.T)
    numpy.testing.assert_allclose(found.mean, flat.mean(axis=0))
    numpy.testing.assert_allclose(found.variances, numpy.linalg.eigvalsh(covariance)[::-1][:4])
    numpy.testing.assert_allclose(covariance @ found.components.T, found.components.T * found.variances)
    numpy.testing.assert_allclose(found.components @ found.components.T, numpy.eye(4), atol=1e-12)
    assert (found.components.max(axis=1) == abs(found.components).max(axis=1)).all()


def test_the_error_is_the_variance_that_is_left_out(rng):
    x = rng.normal(size=(200, 5, 2)).astype("float32") * rng.uniform(0.1, 2, (5, 2)).astype("float32")
    y = dl.data.pca(x, 3).reconstruct(x)
    assert y.shape == x.shape
    assert y.dtype == numpy.float32
    left_out = dl.data.pca(x, 10).variances[3:].sum() * 199 / 200
    assert ((x - y) ** 2).sum(axis=(1, 2)).mean() == pytest.approx(left_out, rel=1e-5)
    numpy.testing.assert_allclose(dl.data.pca(x, 10).reconstruct(x), x, atol=1e-5)


def test_codes_and_clipping(rng):
    x = rng.uniform(size=(40, 6))
    found = dl.data.pca(x, 2)
    codes = found.encode(x)
    numpy.testing.assert_allclose(codes.mean(axis=0), 0, atol=1e-12)
    numpy.testing.assert_allclose(codes.var(axis=0, ddof=1), found.variances)
    numpy.testing.assert_allclose(found.decode(codes), found.reconstruct(x))
    clipped = found.reconstruct(x, low=0.4, high=0.6)
    numpy.testing.assert_array_equal(clipped, found.reconstruct(x).clip(0.4, 0.6))
    numpy.testing.assert_array_equal(dl.data.pca(dl.tensor(x), 2).components, found.components)


def test_what_does_not_fit_is_refused(rng):
    x = rng.uniform(size=(5, 8))
    for count in (0, 6):
        with pytest.raises(ValueError, match=f"1 to 5 components.*got {count}"):
            dl.data.pca(x, count)
    with pytest.raises(ValueError, match=r"PCA takes numbers \(observations, ...\); got float64 \(8,\)"):
        dl.data.pca(x[0], 1)
    found = dl.data.pca(x, 2)
    with pytest.raises(ValueError, match="of 8 features; got observations of 7"):
        found.encode(x[:, :7])
    with pytest.raises(ValueError, match=r"codes \(N, 2\); got \(5, 3\)"):
        found.decode(x[:, :3])
    x[2, 3] = numpy.nan
    with pytest.raises(ValueError, match="2, 3"):
        dl.data.pca(x, 2)


@pytest.mark.skipif(
    not (SHARED / "mnist").is_dir(), reason="MNIST is not there; MINIDL_SHARED_DATA can name its parent"
)
def test_the_papers_error_on_mnist():
    """Hinton & Salakhutdinov (2006) report 13.87 for a test image, with 30 components."""
    train, test = dl.data.read_idx_folder(SHARED / "mnist")
    y = dl.data.pca(train.images, 30).reconstruct(test.images)
    assert ((test.images - y) ** 2).sum(axis=(1, 2, 3)).mean() == pytest.approx(13.866, abs=0.001)
