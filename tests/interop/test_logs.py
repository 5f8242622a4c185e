import csv
import json
import sys
import types

import numpy
import pytest

import minidl as dl
from minidl.interop import logs

X = numpy.random.default_rng(0).normal(size=(40, 3)).astype("float32")
Y = X[:, :1]


def train(*callbacks, epochs=3, **options):
    trainer = dl.Trainer(
        dl.Dense(3, 1, seed=0), dl.mean_squared_error, metrics=[dl.mae], device="cpu", seed=0, compile=False
    )
    return trainer.fit(
        X, Y, epochs=epochs, batch_size=10, validation_data=(X, Y), validation_frequency=5, verbose=False,
        callbacks=list(callbacks), **options,
    )  # fmt: skip


class Rows(logs.Log):
    def __init__(self, frequency=50):
        super().__init__(frequency)
        self.events = []

    def begin(self, settings):
        self.events.append(("begin", settings["optimizer"]))

    def row(self, table, step, figures):
        self.events.append((table, step, figures))

    def finish(self):
        self.events.append("finish")


@pytest.mark.parametrize("frequency", [1, 5, 7, 100])
def test_every_row_is_handed_on_once(frequency):
    log = Rows(frequency)
    history = train(log)
    assert log.events[0] == ("begin", "Adam")
    assert log.events[-1] == "finish"
    for table in logs.TABLES:
        rows = [event for event in log.events if event[0] == table]
        columns = getattr(history, table)
        assert len(rows) == len(columns["loss"])
        assert [figures["loss"] for _, _, figures in rows] == columns["loss"]
    assert [event[1] for event in log.events if event[0] == "steps"] == list(range(1, 13))
    assert [event[1] for event in log.events if event[0] == "epochs"] == [4, 8, 12]
    assert [event[1] for event in log.events if event[0] == "validation"] == [5, 10, 12]


def test_a_resumed_training_hands_on_what_is_new(tmp_path):
    first, second = Rows(), Rows()
    train(first, epochs=1, checkpoint_folder=tmp_path)
    train(second, epochs=2, checkpoint_folder=tmp_path, resume=True)
    steps = [event[1] for log in (first, second) for event in log.events if event[0] == "steps"]
    assert steps == list(range(1, 9))


def test_an_error_ends_a_log_too():
    def fail(run):
        if run.step == 2:
            raise RuntimeError("on purpose")

    log = Rows()
    with pytest.raises(RuntimeError, match="on purpose"):
        train(log, fail)
    assert [event[1] for event in log.events if event[0] == "steps"] == [1, 2]
    assert log.events[-1] == "finish"


def test_csv(tmp_path):
    paths = {table: tmp_path / f"{table}.csv" for table in logs.TABLES}
    history = train(*(logs.CSVLog(path, table) for table, path in paths.items()))
    for table, path in paths.items():
        with open(path) as file:
            rows = list(csv.DictReader(file))
        assert [float(row["loss"]) for row in rows] == getattr(history, table)["loss"]
        assert list(rows[0])[:2] == ["step", "epoch" if table == "epochs" else "loss"]
    with pytest.raises(ValueError, match="table is one of steps, epochs, validation; got 'all'"):
        logs.CSVLog("x", "all")
    with pytest.raises(ValueError, match="frequency is a number of steps, got 0"):
        logs.CSVLog("x", frequency=0)


def test_json_lines(tmp_path):
    path = tmp_path / "log.jsonl"
    history = train(logs.JSONLinesLog(path))
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert lines[0]["table"] == "settings"
    assert lines[0]["seed"] == 0
    assert lines[0]["validation_patience"] is None  # infinity
    losses = [line["loss"] for line in lines if line["table"] == "validation"]
    assert losses == history.validation["loss"]


def test_tensorboard(tmp_path):
    pytest.importorskip("tensorboardX", reason="tensorboardX is not installed (the extra `interop`)")
    from tensorboardX.proto.event_pb2 import Event

    history = train(logs.TensorBoardLog(tmp_path / "run"))
    (path,) = (tmp_path / "run").iterdir()
    found = {}
    data = path.read_bytes()
    while data:  # a length, its checksum, a record, its checksum
        length = int.from_bytes(data[:8], "little")
        event = Event.FromString(data[12 : 12 + length])
        data = data[16 + length :]
        for value in event.summary.value:
            if value.HasField("simple_value"):
                found.setdefault(value.tag, {})[event.step] = value.simple_value
    assert list(found["validation/loss"]) == history.validation["step"]
    numpy.testing.assert_allclose(list(found["steps/mae"].values()), history.steps["mae"], rtol=1e-6)


def test_weights_and_biases(monkeypatch):
    """Against a stand-in that notes what it is called with."""
    noted = []
    run = types.SimpleNamespace(log=noted.append, finish=lambda: noted.append("finish"))
    module = types.ModuleType("wandb")
    module.init = lambda **options: noted.append(options) or run
    monkeypatch.setitem(sys.modules, "wandb", module)
    history = train(logs.WandbLog(mode="offline", project="p"))
    assert (noted[0]["mode"], noted[0]["project"], noted[0]["config"]["loss"]) == (
        "offline",
        "p",
        "mean_squared_error",
    )
    assert noted[-1] == "finish"
    logged = [row["validation/loss"] for row in noted[1:-1] if "validation/loss" in row]
    assert logged == history.validation["loss"]
    assert [row["epochs/step"] for row in noted[1:-1] if "epochs/step" in row] == [4, 8, 12]


def test_mlflow(monkeypatch):
    """Against a stand-in that notes what it is called with."""
    noted = []
    module = types.ModuleType("mlflow")
    module.start_run = lambda **options: noted.append(options)
    module.log_params = noted.append
    module.log_metrics = lambda figures, step: noted.append((figures, step))
    module.end_run = lambda: noted.append("end")
    monkeypatch.setitem(sys.modules, "mlflow", module)
    history = train(logs.MLflowLog(run_name="r"))
    assert noted[0] == {"run_name": "r"}
    assert noted[1]["batch_size"] == 10
    assert noted[-1] == "end"
    logged = [figures["validation/mae"] for figures, _ in noted[2:-1] if "validation/mae" in figures]
    assert logged == history.validation["mae"]
