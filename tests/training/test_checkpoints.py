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
from minidl.training import CheckpointError, checkpoints, fit
from minidl.training.checkpoints import Checkpoint
from tests.training.conftest import assert_same_weights

QUIET = {"verbose": False}
SCRIPT = ["-m", "tests.training.killed"]
ROOT = Path(__file__).parents[2]


def files(folder):
    return sorted(path.name for path in folder.iterdir())


# --- killed and resumed -------------------------------------------------------------------------------


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


# --- what is in the folder ----------------------------------------------------------------------------


def test_the_last_checkpoints_and_the_best_weights_are_kept(make_trainer, data, tmp_path):
    trainer = make_trainer()
    history = trainer.fit(
        *data,
        epochs=5,
        batch_size=32,
        validation_data=data,
        validation_frequency=4,
        checkpoint_folder=tmp_path / "new" / "folder",
        keep_checkpoints=3,
        **QUIET,
    )
    folder = tmp_path / "new" / "folder"
    assert files(folder) == [
        "best.safetensors",
        "checkpoint-000009.safetensors",
        "checkpoint-000012.safetensors",
        "checkpoint-000015.safetensors",
    ]
    best = make_trainer()
    best.network.load(folder / "best.safetensors")
    assert history.returned == "best"
    assert_same_weights(trainer, best)


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


def test_an_earlier_training_is_not_overwritten_by_mistake(make_trainer, data, tmp_path):
    make_trainer().fit(*data, epochs=1, checkpoint_folder=tmp_path, **QUIET)
    before = files(tmp_path)
    with pytest.raises(ValueError, match=r"holds checkpoints of an earlier training: pass resume=True"):
        make_trainer().fit(*data, epochs=1, checkpoint_folder=tmp_path, **QUIET)
    assert files(tmp_path) == before


# --- checkpoints that cannot be written ---------------------------------------------------------------


def test_a_full_disk_loses_a_checkpoint_and_not_the_training(make_trainer, data, tmp_path):
    resource = pytest.importorskip("resource")
    trainer, whole = make_trainer(), make_trainer()
    whole.fit(*data, epochs=4, batch_size=32, **QUIET)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)

    def fill_the_disk(fit):
        if fit.step == 5:
            resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))

    try:
        with pytest.warns(UserWarning, match=r"checkpoint of step .* could not be written.*training goes on"):
            trainer.fit(
                *data,
                epochs=4,
                batch_size=32,
                checkpoint_folder=tmp_path,
                callbacks=[fill_the_disk],
                **QUIET,
            )
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert_same_weights(whole, trainer)
    assert files(tmp_path) == ["checkpoint-000003.safetensors"]
    resumed = make_trainer()
    resumed.fit(*data, epochs=4, batch_size=32, checkpoint_folder=tmp_path, resume=True, **QUIET)
    assert_same_weights(whole, resumed)


def test_a_folder_that_cannot_be_made_is_said_before_training(make_trainer, data, tmp_path):
    (tmp_path / "file").write_text("")
    steps = []
    with pytest.raises(OSError, match="file"):
        make_trainer().fit(
            *data, checkpoint_folder=tmp_path / "file" / "inside", callbacks=[steps.append], **QUIET
        )
    assert not steps


def test_what_a_killed_process_left_over_is_removed(make_trainer, data, tmp_path):
    (tmp_path / ".checkpoint-000007.safetensors.abc123.tmp").write_bytes(b"half of it")
    (tmp_path / "notes.txt").write_text("mine")
    make_trainer().fit(*data, epochs=1, checkpoint_folder=tmp_path, **QUIET)
    assert files(tmp_path) == ["checkpoint-000001.safetensors", "notes.txt"]


# --- checkpoints that cannot be read ------------------------------------------------------------------


@pytest.fixture
def checkpoint_file(make_trainer, data, tmp_path):
    make_trainer().fit(*data, epochs=1, checkpoint_folder=tmp_path, **QUIET)
    return next(tmp_path.glob("checkpoint-*"))


def resume(make_trainer, data, folder, **options):
    trainer = make_trainer(**options)
    before = trainer.network.state_dict()
    try:
        trainer.fit(*data, epochs=2, checkpoint_folder=folder, resume=True, **QUIET)
    except CheckpointError:
        for name, array in trainer.network.state_dict().items():
            numpy.testing.assert_array_equal(before[name], array)
        raise


@pytest.mark.parametrize("length", [0, 5, 100, 3000, -1])
def test_a_truncated_checkpoint_is_named(make_trainer, data, checkpoint_file, length):
    checkpoint_file.write_bytes(checkpoint_file.read_bytes()[:length])
    with pytest.raises(CheckpointError, match=f"{checkpoint_file.name} is damaged or no safetensors file"):
        resume(make_trainer, data, checkpoint_file.parent)


def test_any_changed_byte_is_noticed(make_trainer, data, checkpoint_file):
    content = checkpoint_file.read_bytes()
    positions = random.Random(0).sample(range(len(content)), 200)
    for position in positions:
        changed = bytearray(content)
        changed[position] ^= 1 << random.Random(position).randrange(8)
        checkpoint_file.write_bytes(changed)
        with pytest.raises(CheckpointError, match=checkpoint_file.name):
            checkpoints.read(checkpoint_file)


def test_a_foreign_file_is_named(make_trainer, data, checkpoint_file):
    make_trainer().network.save(checkpoint_file)
    with pytest.raises(CheckpointError, match="no checkpoint of a training; weights alone are read with"):
        resume(make_trainer, data, checkpoint_file.parent)
    with pytest.raises(CheckpointError, match="there is no checkpoint"):
        checkpoints.read(checkpoint_file.with_name("another"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"optimizer": "sgdm"}, "optimizer was 'Adam', now it is 'SGD'"),
        ({"data": 50}, "observations was 96, now it is 50"),
        ({"network": True}, r"missing: network/extra\.weight"),
    ],
)
def test_a_checkpoint_of_another_training_is_refused(make_trainer, data, checkpoint_file, options, message):
    x, y = data
    count = options.pop("data", 96)
    larger = options.pop("network", False)

    def make(**given):
        trainer = make_trainer(**given)
        if larger:
            trainer.network.extra = dl.Dense(2, 2, seed=0)
        return trainer

    with pytest.raises(CheckpointError, match=f"(?s){checkpoint_file.name} does not fit.*{message}"):
        resume(make, (x[:count], y[:count]), checkpoint_file.parent, **options)


def test_lbfgs_cannot_be_resumed(make_trainer, data, tmp_path):
    options = {"checkpoint_folder": tmp_path, "checkpoint_frequency": 2, "keep_checkpoints": 1, **QUIET}
    stop = [lambda fit: fit.step == 3]
    make_trainer(optimizer="lbfgs").fit(*data, callbacks=stop, **options)
    assert files(tmp_path) == ["checkpoint-000003.safetensors"]
    with pytest.raises(ValueError, match="LBFGS cannot be resumed: checkpoints do not hold"):
        make_trainer(optimizer="lbfgs").fit(*data, resume=True, **options)


def test_values_and_arrays_come_back(tmp_path):
    rng = numpy.random.default_rng(0)
    arrays = {"a/x": rng.normal(size=(3, 2)), "a/y": numpy.array(1.5), "b": numpy.zeros((0, 4), "float32")}
    values = {"state": 2**127 - 1, "text": "ü", "nothing": None, "infinity": float("inf"), "third": 1 / 3}
    checkpoints.write(tmp_path / "c", Checkpoint(arrays, values))
    read = checkpoints.read(tmp_path / "c")
    assert read.values == values
    assert list(read.part("a")) == ["x", "y"]
    for name, array in arrays.items():
        numpy.testing.assert_array_equal(read.arrays[name], array, strict=True)
