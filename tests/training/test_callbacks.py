import contextlib
import io
import subprocess
import sys

import pytest

import minidl as dl
from tests.training.helpers import QUIET


class Note(dl.Callback):
    """Notes each moment, and what can be read there."""

    def __init__(self):
        self.moments = []

    def start(self, run):
        self.moments.append(("start", run.step))

    def step(self, run):
        assert len(run.history) == run.step
        self.moments.append(("step", run.step))

    def validation(self, run):
        self.moments.append(("validation", run.history.validation["step"][-1]))

    def epoch(self, run):
        assert run.history.epochs["epoch"][-1] == run.epoch
        self.moments.append(("epoch", run.epoch))

    def end(self, run):
        self.moments.append(("end", type(run.error).__name__))


def test_the_moments_and_their_order(make_trainer, data):
    note = Note()
    options = {"validation_data": data, "validation_frequency": 2, **QUIET}
    make_trainer().fit(*data, epochs=2, batch_size=48, callbacks=[note], **options)
    assert note.moments == [
        ("start", 0),
        ("step", 1),
        ("validation", 2),
        ("step", 2),
        ("epoch", 1),
        ("step", 3),
        ("validation", 4),
        ("step", 4),
        ("epoch", 2),
        ("end", "NoneType"),
    ]


def test_validation_at_the_end_of_each_epoch(make_trainer, data):
    note = Note()
    options = {"validation_data": data, "validation_frequency": "epoch", **QUIET}
    make_trainer().fit(*data, epochs=1, batch_size=96, callbacks=[note], **options)
    assert note.moments[1:4] == [("step", 1), ("validation", 1), ("epoch", 1)]


@pytest.mark.parametrize("moment", ["start", "step", "epoch"])
def test_an_error_in_a_callback_ends_the_training_and_the_others_end_in_order(make_trainer, data, moment):
    class Fail(dl.Callback):
        pass

    def fail(self, run):
        raise RuntimeError("no more")

    setattr(Fail, moment, fail)
    note = Note()
    with pytest.raises(RuntimeError, match="no more"):
        make_trainer().fit(*data, epochs=1, callbacks=[Fail(), note], **QUIET)
    assert note.moments[-1] == ("end", "RuntimeError")


def test_an_error_at_the_end_hides_no_earlier_one(make_trainer, data):
    class Fail(dl.Callback):
        def step(self, run):
            raise RuntimeError("first")

        def end(self, run):
            raise OSError("second")

    note = Note()
    with pytest.warns(UserWarning, match="second"), pytest.raises(RuntimeError, match="first"):
        make_trainer().fit(*data, epochs=1, callbacks=[Fail(), note], **QUIET)
    assert note.moments[-1][0] == "end"


def test_an_error_at_the_end_alone_is_raised(make_trainer, data):
    class Fail(dl.Callback):
        def end(self, run):
            raise OSError("the only one")

    with pytest.raises(OSError, match="the only one"):
        make_trainer().fit(*data, epochs=1, callbacks=[Fail()], **QUIET)


@pytest.mark.parametrize("moment", ["step", "validation", "epoch"])
@pytest.mark.parametrize("compile", [False, {"kernels": "numpy"}, {"kernels": "c"}])
def test_what_a_callback_changes_counts_from_the_next_step_on(make_trainer, data, moment, compile):
    class Lower(dl.Callback):
        pass

    def lower(self, run):
        if run.step == 2:
            run.trainer.optimizer.learning_rate = 0.001

    setattr(Lower, moment, lower)
    trainer = make_trainer(optimizer=lambda n: dl.SGD(n.parameters(), 0.1), compile=compile)
    options = {"validation_data": data, "validation_frequency": 2, **QUIET}
    history = trainer.fit(*data, epochs=2, batch_size=48, callbacks=[Lower()], **options)
    assert history.steps["learning_rate"] == pytest.approx([0.1, 0.1, 0.001, 0.001])


@pytest.mark.parametrize(
    ("callback", "message"),
    [
        (Note, r"not classes: write Note\(\)"),
        (3, "takes Callbacks and functions of the running Fit, got int"),
    ],
)
def test_other_things_are_refused(make_trainer, data, callback, message):
    with pytest.raises(TypeError, match=message):
        make_trainer().fit(*data, callbacks=[callback], **QUIET)


# --- output that nobody can see -------------------------------------------------------------------


class Broken(io.StringIO):
    """A stream that breaks after some writes, as a pipe to ``head`` does."""

    def __init__(self, writes, error):
        super().__init__()
        self.left, self.error = writes, error

    def write(self, text):
        self.left -= 1
        if self.left < 0:
            raise self.error
        return super().write(text)


@pytest.mark.parametrize("writes", [0, 3])
@pytest.mark.parametrize(
    "error",
    [
        BrokenPipeError("Broken pipe"),
        OSError("Input/output error"),
        ValueError("I/O operation on closed file"),
        UnicodeEncodeError("ascii", "█", 0, 1, "ordinal not in range"),
    ],
    ids=repr,
)
def test_output_that_breaks_ends_no_training(make_trainer, data, writes, error):
    with contextlib.redirect_stdout(Broken(writes, error)), contextlib.redirect_stderr(Broken(writes, error)):
        history = make_trainer().fit(*data, epochs=3, batch_size=32, verbose_frequency=1)
    assert history.stop_reason == "all epochs completed"
    assert len(history) == 9


@pytest.mark.parametrize("stream", [None, object()])
def test_streams_that_are_not_there_or_are_none(make_trainer, data, monkeypatch, stream):
    """Without a console (pythonw) they are None; some programs put other things in their place."""
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setattr(sys, "stdout", None)
    assert len(make_trainer().fit(*data, epochs=1, batch_size=32, validation_data=data)) == 3
    assert len(make_trainer().predict(data[0], verbose=True)) == 96


def test_head_ends_no_training(tmp_path):
    script = (
        "import numpy, minidl as dl; x = numpy.ones((64, 2), 'f'); "
        "t = dl.Trainer(dl.Dense(2, 1), dl.mean_squared_error, device='cpu'); "
        "t.fit(x, x[:, :1], epochs=200, batch_size=16, verbose_frequency=1); "
        f"t.network.save({str(tmp_path / 'done')!r})"
    )
    process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    process.stdout.readline()
    process.stdout.close()
    assert b"Traceback" not in process.stderr.read()
    process.stderr.close()
    process.wait()
    assert (tmp_path / "done").exists()
