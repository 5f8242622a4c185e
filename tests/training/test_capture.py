import json
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy
import pytest

import minidl as dl
from minidl.errors import CheckpointError
from minidl.training import checkpoints, fit
from tests.training.helpers import QUIET, assert_same_weights, resume

SCRIPT = ["-m", "tests.training.killed"]
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory):
    folder = tmp_path_factory.mktemp("unbroken")
    subprocess.run([sys.executable, *SCRIPT, folder], cwd=ROOT, check=True)
    return folder


@pytest.mark.parametrize("seed", range(4))
def test_a_training_killed_at_random_moments_ends_bit_for_bit_the_same(unbroken, tmp_path, seed):
    """Five kills each, at any moment: while a step runs, or a checkpoint is written (there is one a step)."""
    random_moments = random.Random(seed)
    kills = 0
    while True:
        process = subprocess.Popen(
            [sys.executable, *SCRIPT, tmp_path, "0.004"], cwd=ROOT, stdout=subprocess.PIPE
        )
        process.stdout.readline()  # it is about to begin
        if kills < 5:
            time.sleep(random_moments.uniform(0.0, 0.1))
            process.send_signal(signal.SIGKILL)
        code = process.wait()
        process.stdout.close()
        for path in tmp_path.glob("checkpoint-*.safetensors"):
            checkpoints.read(path)  # whole
        if code == 0:
            break
        assert code == -signal.SIGKILL
        kills += 1
    assert kills == 5
    assert (tmp_path / "final.safetensors").read_bytes() == (unbroken / "final.safetensors").read_bytes()
    histories = [json.loads((folder / "history.json").read_text()) for folder in (tmp_path, unbroken)]
    for history in histories:
        del history["seconds"], history["epochs"]["seconds"]
        history["settings"].pop("checkpoint_folder")
    assert histories[0] == histories[1]
    assert not list(tmp_path.glob(".*.tmp"))


@pytest.mark.parametrize("stop", [1, 3, 4, 8])
@pytest.mark.parametrize("compile", [True, False])
@pytest.mark.parametrize("device", ["cpu", "gpu"])
def test_stopped_and_resumed_in_the_middle_of_an_epoch(
    gpu, make_trainer, data, tmp_path, stop, compile, device, monkeypatch
):
    monkeypatch.setattr(fit, "SNAPSHOT_STEPS", 3)  # what a diverging training is traced from
    settings = {"rate": 0.3, "compile": compile, "device": device}
    options = {"epochs": 3, "batch_size": 32, "validation_data": data, "validation_frequency": 2, **QUIET}
    whole = make_trainer(**settings)
    expected = whole.fit(*data, **options)
    options |= {"checkpoint_folder": tmp_path, "resume": True}
    first = make_trainer(**settings)
    first.fit(*data, callbacks=[lambda fit: fit.step == stop], **options)
    second = make_trainer(seed=0, **settings)
    history = second.fit(*data, **options)
    assert_same_weights(whole, second)
    assert history.steps == expected.steps
    assert history.epochs["loss"] == expected.epochs["loss"]
    assert history.best_step == expected.best_step
    assert history.stop_reason == expected.stop_reason


def test_a_seed_that_nobody_gave_is_resumed_too(make_trainer, data, tmp_path):
    options = {"epochs": 4, "batch_size": 32, "checkpoint_folder": tmp_path, **QUIET}
    first = make_trainer(seed=None)
    first.fit(*data, callbacks=[lambda fit: fit.step == 5], **options)
    other = make_trainer(seed=None)
    history = other.fit(*data, resume=True, **options)
    assert history.settings["seed"] == first.seed != other.seed
    whole = make_trainer(seed=first.seed)
    whole.fit(*data, epochs=4, batch_size=32, **QUIET)
    assert_same_weights(whole, other)


def test_a_finished_training_can_be_prolonged(make_trainer, data, tmp_path):
    options = {"batch_size": 32, "checkpoint_folder": tmp_path, **QUIET}
    make_trainer().fit(*data, epochs=2, **options)
    trainer, whole = make_trainer(), make_trainer()
    history = trainer.fit(*data, epochs=4, resume=True, **options)
    assert len(history) == 12
    whole.fit(*data, epochs=4, batch_size=32, **QUIET)
    assert_same_weights(whole, trainer)
    again = make_trainer()
    assert len(again.fit(*data, epochs=4, resume=True, **options)) == 12  # nothing left to do
    assert_same_weights(whole, again)


def test_iterables_are_resumed_where_they_were(make_trainer, data, tmp_path):
    x, y = data
    batches = [(x[i : i + 32], y[i : i + 32]) for i in (0, 32, 64)]
    whole, first, second = make_trainer(), make_trainer(), make_trainer()
    whole.fit(batches, epochs=2, **QUIET)
    options = {"epochs": 2, "checkpoint_folder": tmp_path, "resume": True, **QUIET}
    first.fit(batches, callbacks=[lambda fit: fit.step == 2], **options)
    second.fit(batches, **options)
    assert_same_weights(whole, second)


def test_shared_weights_are_written_once(data, tmp_path):
    class Tied(dl.Layer):
        def __init__(self):
            self.dense = dl.Dense(4, 4, seed=0)
            self.again = [self.dense, self.dense.weight]

        def forward(self, x):
            return self.dense(x) @ self.again[1].T

    trainer = dl.Trainer(Tied(), dl.mean_squared_error, seed=0, device="cpu")
    trainer.fit(data[0], data[0], epochs=1, checkpoint_folder=tmp_path, **QUIET)
    checkpoint = checkpoints.read(next(tmp_path.glob("checkpoint-*")))
    assert list(checkpoint.part("network")) == ["dense.weight", "dense.bias"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"optimizer": "sgdm"}, "optimizer was 'Adam', now it is 'SGD'"),
        ({"network": True}, r"missing: network/extra\.weight"),
    ],
)
def test_a_checkpoint_of_another_training_is_refused(make_trainer, data, checkpoint_file, options, message):
    larger = options.pop("network", False)

    def make(**given):
        trainer = make_trainer(**given)
        if larger:
            trainer.network.extra = dl.Dense(2, 2, seed=0)
        return trainer

    with pytest.raises(CheckpointError, match=f"(?s){checkpoint_file.name} does not fit.*{message}"):
        resume(make, data, checkpoint_file.parent, **options)


@pytest.mark.parametrize("kind", ["PCG64", "PCG64DXSM", "MT19937", "Philox", "SFC64"])
def test_every_kind_of_generator_is_resumed(data, tmp_path, kind):
    def make():
        bits = getattr(numpy.random, kind)(3)
        dropout = dl.Dropout(0.3, seed=dl.random.Generator(numpy.random.Generator(bits)))
        network = dl.Network([dl.Dense(4, 16, seed=1), dropout, dl.Dense(16, 2, seed=3)])
        return dl.Trainer(network, dl.mean_squared_error, seed=0, device="cpu")

    options = {"epochs": 2, "batch_size": 32, **QUIET}
    whole, first, second = make(), make(), make()
    whole.fit(*data, **options)
    options |= {"checkpoint_folder": tmp_path, "resume": True}
    first.fit(*data, callbacks=[lambda fit: fit.step == 2], **options)
    second.fit(*data, **options)
    assert_same_weights(whole, second)


def test_a_generator_of_another_kind_is_refused_before_anything_is_loaded(data, tmp_path):
    def make(kind):
        dropout = dl.Dropout(0.3, seed=dl.random.Generator(numpy.random.Generator(kind(3))))
        network = dl.Network([dl.Dense(4, 2, seed=1), dropout])
        return dl.Trainer(network, dl.mean_squared_error, seed=0, device="cpu")

    options = {"epochs": 2, "batch_size": 32, "checkpoint_folder": tmp_path, "resume": True, **QUIET}
    make(numpy.random.PCG64).fit(*data, callbacks=[lambda fit: fit.step == 2], **options)
    other = make(numpy.random.SFC64)
    before = other.network.state_dict(), other.network[1].generator.state_dict()
    with pytest.raises(CheckpointError, match=r"the state of 1\.generator is one of PCG64, not of SFC64"):
        other.fit(*data, **options)
    assert other.network[1].generator.state_dict() == before[1]
    for name, array in before[0].items():
        numpy.testing.assert_array_equal(other.network.state_dict()[name], array)


@pytest.mark.parametrize("compile", [True, False])
def test_draws_of_the_shared_generator_are_resumed_too(data, tmp_path, compile):
    class Noisy(dl.Layer):
        def __init__(self):
            self.dense = dl.Dense(4, 2, seed=1)

        def forward(self, x):
            return self.dense(x + 0.1 * dl.random.normal(x.shape))

    def train(**options):
        trainer = dl.Trainer(Noisy(), dl.mean_squared_error, seed=0, device="cpu", compile=compile)
        trainer.fit(*data, epochs=2, batch_size=32, **options, **QUIET)
        return trainer

    dl.random.seed(5)
    whole = train()
    folder = {"checkpoint_folder": tmp_path, "resume": True}
    dl.random.seed(5)
    train(callbacks=[lambda fit: fit.step == 2], **folder)
    dl.random.seed(77)
    assert_same_weights(whole, train(**folder))
