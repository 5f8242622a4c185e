"""A network that several threads use."""

import threading

import numpy
import pytest

import minidl as dl


def make(seed=0):
    network = dl.Network([dl.Dense(4, 4, seed=seed), dl.Dropout(0.5, seed=seed), dl.Dense(4, 4, seed=seed)])
    return dl.Trainer(network, dl.mean_squared_error, dl.SGD(network.parameters(), 0.1), device="cpu", seed=0)


X = numpy.random.default_rng(0).random((64, 4)).astype("float32")


def test_predicting_beside_a_training_is_refused_and_changes_nothing():
    alone = make()
    alone.fit(X, X, epochs=2, batch_size=16, verbose=False)
    trainer, problems = make(), []

    def predict_elsewhere(fit):
        def predict():
            try:
                trainer.predict(X)
            except RuntimeError as error:
                problems.append(str(error))

        thread = threading.Thread(target=predict)
        thread.start()
        thread.join()

    trainer.fit(X, X, epochs=2, batch_size=16, verbose=False, callbacks=[predict_elsewhere])
    assert problems
    assert all("is being trained in another thread" in problem for problem in problems)
    for ours, theirs in zip(trainer.network.parameters(), alone.network.parameters(), strict=True):
        numpy.testing.assert_array_equal(ours.numpy(), theirs.numpy())
    assert trainer.predict(X).shape == X.shape


def test_a_callback_may_predict():
    trainer, seen = make(), []
    trainer.fit(
        X,
        X,
        epochs=1,
        batch_size=16,
        verbose=False,
        callbacks=[lambda fit: seen.append(trainer.predict(X).sum()) and 0],
    )
    assert len(seen) == 6


def test_predictions_of_several_threads_wait_for_each_other():
    trainer = make()
    expected, results = trainer.predict(X, batch_size=16), []
    threads = [
        threading.Thread(target=lambda: results.append(trainer.predict(X, batch_size=16))) for _ in range(6)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 6
    for result in results:
        numpy.testing.assert_array_equal(result, expected)


def test_an_error_ends_the_use():
    trainer = make()
    with pytest.raises(ValueError, match="Dense"):
        trainer.fit(X[:, :3], X, epochs=1, verbose=False)
    thread_result = []
    thread = threading.Thread(target=lambda: thread_result.append(trainer.predict(X)))
    thread.start()
    thread.join()
    assert len(thread_result) == 1
