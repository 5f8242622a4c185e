import numpy
import pytest

import minidl as dl
from tests.training.helpers import QUIET, assert_same_weights


def test_float64_data_for_a_float32_network_and_tensors(make_trainer, data):
    first, other = make_trainer(), make_trainer()
    first.fit(*data, epochs=1, batch_size=32, **QUIET)
    other.fit(data[0].astype(float), dl.tensor(data[1].astype(float)), epochs=1, batch_size=32, **QUIET)
    assert_same_weights(first, other)
    assert first.predict(data[0].astype(float)).dtype == numpy.float32


@pytest.mark.parametrize("compile", [True, False])
@pytest.mark.parametrize("optimizer", ["adam", lambda network: dl.Adam(network.parameters())])
def test_training_on_device_arrays(gpu, gpu_name, make_trainer, data, compile, optimizer):
    """The same weights come out, with every mini-batch and figure carried over explicitly."""
    on_cpu, on_gpu = (
        make_trainer(optimizer=optimizer, device=device, compile=compile) for device in ("cpu", gpu_name)
    )
    assert {x.device for x in on_gpu.network.parameters()} == {gpu_name}
    for trainer in (on_cpu, on_gpu):
        history = trainer.fit(*data, epochs=2, batch_size=32, validation_data=data, **QUIET)
        assert len(history) == 6
    numpy.testing.assert_allclose(on_gpu.predict(data[0]), on_cpu.predict(data[0]), atol=1e-5)


@pytest.mark.parametrize("kind", ["arrays", "float64", "memory maps", "iterable"])
def test_data_that_stay_on_the_host_are_uploaded_ahead(
    gpu, gpu_name, make_trainer, data, monkeypatch, tmp_path, kind
):
    """Training, validation, evaluation and prediction, in which all the stand-in's copies arrive late."""
    monkeypatch.setattr(dl.devices, "has_room", lambda device, nbytes: False)
    x, y = data
    if kind == "float64":
        x, y = x.astype(float), y.astype(float)
    elif kind == "memory maps":
        for name, array in zip("xy", data, strict=True):
            numpy.save(tmp_path / f"{name}.npy", array)
        x, y = (numpy.load(tmp_path / f"{name}.npy", mmap_mode="r") for name in "xy")
    batches = [(x[i : i + 32], y[i : i + 32]) for i in (0, 32, 64)]
    results = []
    for device in ("cpu", gpu_name):
        trainer = make_trainer(device=device)
        if kind == "iterable":
            trainer.fit(batches, epochs=3, validation_data=batches, validation_frequency=2, **QUIET)
            figures, outputs = trainer.evaluate(batches), trainer.predict([x for x, _ in batches])
        else:
            trainer.fit(
                x, y, epochs=3, batch_size=32, validation_data=(x, y), validation_frequency=2, **QUIET
            )
            figures, outputs = trainer.evaluate(x, y, 20), trainer.predict(x, 20)
        results.append([*trainer.network.state_dict().values(), outputs, *figures.values()])
    for ours, theirs in zip(*results, strict=True):
        numpy.testing.assert_allclose(ours, theirs, atol=1e-5)


def test_a_network_that_was_moved_comes_back(gpu, make_trainer, data):
    trainer, stayed = (make_trainer(device="gpu") for _ in range(2))
    for one in (trainer, stayed):
        for _ in range(2):
            one.fit(*data, epochs=1, batch_size=32, **QUIET)
            if one is trainer:
                one.network.to("cpu")
        assert one.evaluate(*data) == one.evaluate(*data)
        one.network.to("cpu")
        assert one.predict(data[0]).shape == (96, 2)
    assert_same_weights(trainer, stayed)


# --- gradients of parts of a mini-batch -----------------------------------------------------------


@pytest.mark.parametrize("compile", [False, {"kernels": "numpy"}, {"kernels": "c"}])
@pytest.mark.parametrize("steps", [2, 3, 5])
@pytest.mark.parametrize("weighted", [False, True])
def test_a_step_in_parts_is_the_step(make_trainer, data, compile, steps, weighted):
    metrics = [dl.rmse, dl.r_squared]
    whole, parts = (make_trainer(metrics=metrics, compile=compile) for _ in range(2))
    options = {"epochs": 2, "batch_size": 32, **QUIET}
    if weighted:
        options["sample_weight"] = numpy.linspace(0, 2, 96)
    expected = whole.fit(*data, **options)
    history = parts.fit(*data, accumulation_steps=steps, **options)
    for name, column in expected.steps.items():
        assert history.steps[name] == pytest.approx(column, rel=1e-4), name
    for name, array in whole.network.state_dict().items():
        numpy.testing.assert_allclose(parts.network.state_dict()[name], array, atol=2e-5, err_msg=name)


@pytest.mark.parametrize("compile", [False, True])
def test_the_number_of_parts_may_change_between_fits_and_exceed_the_observations(make_trainer, data, compile):
    seen = []

    def loss(prediction, target):
        seen.append(prediction.shape[0])
        return dl.mean_squared_error(prediction, target)

    trainer = make_trainer(compile=False)
    trainer.loss = loss
    for steps, sizes in ((1, [4]), (3, [1, 1, 2]), (9, [1] * 4)):
        seen.clear()
        trainer.fit(data[0][:4], data[1][:4], accumulation_steps=steps, epochs=1, **QUIET)
        assert seen == sizes


def test_lbfgs_in_parts(make_trainer, data):
    optimizer = lambda n: dl.LBFGS(n.parameters(), max_iterations=3)
    whole, parts = make_trainer(optimizer=optimizer), make_trainer(optimizer=optimizer)
    expected = whole.fit(*data, **QUIET)
    history = parts.fit(*data, accumulation_steps=4, **QUIET)
    assert history.steps["loss"] == pytest.approx(expected.steps["loss"], rel=1e-3)


@pytest.mark.parametrize("kernels", ["numpy", "c"])
def test_another_number_of_parts_is_another_program(make_trainer, data, kernels):
    compiled, plain = make_trainer(compile={"kernels": kernels}), make_trainer(compile=False)
    for steps in (1, 3, 1, 2):
        options = {"accumulation_steps": steps, "epochs": 1, "batch_size": 32, **QUIET}
        losses = [trainer.fit(*data, **options).steps["loss"] for trainer in (compiled, plain)]
        assert losses[0] == pytest.approx(losses[1], rel=1e-5)
