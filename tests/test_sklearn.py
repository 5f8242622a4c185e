import pickle

import numpy
import pytest

import minidl as dl

sklearn = pytest.importorskip("sklearn", reason="scikit-learn is not installed (the extra `interop`)")
import joblib  # noqa: E402
from sklearn.base import clone  # noqa: E402
from sklearn.datasets import load_diabetes, load_iris  # noqa: E402
from sklearn.model_selection import GridSearchCV, cross_val_score  # noqa: E402
from sklearn.pipeline import make_pipeline  # noqa: E402
from sklearn.preprocessing import StandardScaler  # noqa: E402
from sklearn.utils.estimator_checks import parametrize_with_checks  # noqa: E402

from minidl.sklearn import Autoencoder, Classifier, Regressor  # noqa: E402

QUICK = {"epochs": 20, "random_state": 0, "compile": False}
IRIS, SPECIES = load_iris(return_X_y=True)

#: What a network trained on shuffled mini-batches does not do, and why.
EXPECTED = {
    "check_sample_weight_equivalence_on_dense_data": "mini-batches change with repeated samples",
}


@pytest.mark.slow
@parametrize_with_checks(
    [
        Classifier(hidden=(16,), learning_rate=0.02, epochs=20, random_state=0, compile=False),
        Regressor(hidden=(16,), learning_rate=0.02, epochs=20, random_state=0, compile=False),
        Autoencoder(hidden=(4,), learning_rate=0.02, epochs=2, random_state=0, compile=False),
    ],
    expected_failed_checks=lambda estimator: EXPECTED,
)
def test_scikit_learns_own_checks(estimator, check):
    check(estimator)


# --- classification -------------------------------------------------------------------------------


def test_labels_of_any_type_and_pipelines():
    names = numpy.array(["setosa", "versicolor", "virginica"])[SPECIES]
    model = make_pipeline(StandardScaler(), Classifier(learning_rate=0.02, **QUICK))
    assert cross_val_score(model, IRIS, names, cv=3).mean() > 0.9
    model.fit(IRIS, names)
    probabilities = model.predict_proba(IRIS)
    numpy.testing.assert_allclose(probabilities.sum(1), 1, rtol=1e-5)
    assert set(model.predict(IRIS)) == set(names)
    assert list(model[-1].classes_) == ["setosa", "versicolor", "virginica"]


def test_a_grid_search():
    search = GridSearchCV(Classifier(**QUICK), {"hidden": [(2,), (16,)], "learning_rate": [1e-5, 0.02]}, cv=2)
    search.fit(IRIS, SPECIES)
    assert search.best_params_["learning_rate"] == 0.02
    assert search.best_score_ > 0.9


def test_tables_keep_the_names_of_their_columns():
    pandas = pytest.importorskip("pandas", reason="pandas is not installed (the extra `interop`)")
    table = pandas.DataFrame(IRIS, columns=list("abcd"))
    model = Classifier(**QUICK).fit(table, pandas.Series(SPECIES))
    assert list(model.feature_names_in_) == list("abcd")
    assert (model.predict(table) == model.predict(table)).all()
    with pytest.raises(ValueError, match="feature names"):
        model.predict(table[list("dcba")])
    coder = Autoencoder(hidden=(3,), **QUICK).set_output(transform="pandas").fit(table)
    assert list(coder.transform(table).columns) == ["autoencoder0", "autoencoder1", "autoencoder2"]


@pytest.mark.parametrize("compiled", [False, {"kernels": "numpy"}, {"kernels": "c"}])
def test_sample_weights_decide(compiled):
    x, y = numpy.zeros((40, 1)), numpy.repeat([0, 1], 20)
    for favoured in (0, 1):
        weights = numpy.where(y == favoured, 1.0, 0.1)
        model = Classifier(hidden=(), learning_rate=0.1, **QUICK | {"compile": compiled})
        assert (model.fit(x, y, sample_weight=weights).predict(x) == favoured).all()
        share = 1 / 1.1 if favoured else 0.1 / 1.1
        numpy.testing.assert_allclose(model.predict_proba(x)[0, 1], share, atol=0.03)


def test_training_stops_early_with_the_best_network():
    model = Classifier(validation_fraction=0.3, patience=2, learning_rate=0.3, **QUICK | {"epochs": 200})
    model.fit(IRIS, SPECIES)
    assert len(model.history_.epochs["loss"]) < 200
    assert "no better validation" in model.history_.stop_reason
    assert model.history_.returned == "best"
    with pytest.raises(ValueError, match="leaves none of 150 samples"):
        Classifier(validation_fraction=1.0).fit(IRIS, SPECIES)


# --- networks of one's own ------------------------------------------------------------------------


def small(inputs, outputs, generator):
    return dl.Network([dl.Dense(inputs, 8, seed=generator), dl.Tanh(), dl.Dense(8, outputs, seed=generator)])


def test_networks_and_functions_that_make_them():
    network = dl.Network([dl.Dense(4, 3, seed=0)])
    before = network[0].weight.numpy()
    model = Classifier(network, **QUICK).fit(IRIS, SPECIES)
    numpy.testing.assert_array_equal(network[0].weight.numpy(), before)
    assert (model.network_[0].weight.numpy() != before).any()
    made = Classifier(small, optimizer=dl.Adam, **QUICK).fit(IRIS, SPECIES)
    assert len(made.network_) == 3
    images = dl.Network([dl.Conv2D(1, 2, 3, seed=0), dl.GlobalAveragePool2D(), dl.Dense(2, 2, seed=1)])
    x = numpy.random.default_rng(0).normal(size=(20, 5, 5, 1))
    assert Classifier(images, **QUICK).fit(x, numpy.arange(20) % 2).predict(x).shape == (20,)


@pytest.mark.parametrize("kind", [Classifier, Regressor, Autoencoder])
def test_clones_pickles_and_dumps(kind, tmp_path):
    model = kind(small if kind is not Autoencoder else None, hidden=(3,), **QUICK)
    model.fit(IRIS, SPECIES)
    predict = "transform" if kind is Autoencoder else "predict"
    expected = getattr(model, predict)(IRIS)
    joblib.dump(model, tmp_path / "model.joblib")
    fresh = clone(model).fit(IRIS, SPECIES)
    mapped = joblib.load(tmp_path / "model.joblib", mmap_mode="r")
    for twin in (fresh, pickle.loads(pickle.dumps(model)), mapped):
        numpy.testing.assert_array_equal(getattr(twin, predict)(IRIS), expected)
    mapped.fit(IRIS, SPECIES)


# --- regression and codes -------------------------------------------------------------------------


def test_regression_of_one_and_of_several_numbers():
    x, y = load_diabetes(return_X_y=True)
    model = Regressor(learning_rate=0.01, **QUICK).fit(x, y)
    assert model.score(x, y) > 0.5
    assert model.predict(x).shape == y.shape
    both = Regressor(learning_rate=0.01, **QUICK).fit(x, numpy.stack([y, -1000 * y], 1))
    assert both.predict(x).shape == (len(x), 2)
    assert both.score(x, numpy.stack([y, -1000 * y], 1)) > 0.5


def test_codes_are_reconstructed():
    coder = Autoencoder(hidden=(8, 2), learning_rate=0.02, **QUICK | {"epochs": 60}).fit(IRIS)
    codes = coder.transform(IRIS)
    assert codes.shape == (150, 2)
    assert coder.score(IRIS) > -0.25 * IRIS.var(0).mean()
    numpy.testing.assert_allclose(
        -coder.score(IRIS), ((coder.inverse_transform(codes) - IRIS) ** 2).mean(), rtol=1e-4
    )
    pipeline = make_pipeline(coder, Classifier(learning_rate=0.02, **QUICK))
    assert pipeline.fit(IRIS, SPECIES).score(IRIS, SPECIES) > 0.85
