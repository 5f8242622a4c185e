import math

import pytest

from minidl.training import metric_averages
from tests import strict_device
from tests.training.helpers import QUIET


def test_callbacks_see_the_training_and_can_stop_it(make_trainer, data):
    seen = []

    def callback(fit):
        latest = fit.history.steps["loss"][-1] if fit.step else None
        seen.append((fit.state, fit.step, fit.epoch, latest))
        return fit.step == 4

    history = make_trainer().fit(*data, epochs=5, batch_size=32, callbacks=[callback], **QUIET)
    assert [entry[:3] for entry in seen] == [
        ("start", 0, 1),
        ("step", 1, 1),
        ("step", 2, 1),
        ("step", 3, 1),
        ("step", 4, 2),
        ("end", 4, 2),
    ]
    assert [entry[3] for entry in seen[1:5]] == history.steps["loss"]
    assert history.stop_reason == "stopped by a callback"


@pytest.mark.parametrize("free", [1 << 30, 1000])
@pytest.mark.parametrize("compile", [True, False])
def test_the_host_does_not_wait_within_an_epoch(strict_gpu, make_trainer, data, monkeypatch, free, compile):
    monkeypatch.setattr(strict_gpu.cuda.Device, "mem_info", (free, 1 << 30))
    monkeypatch.setattr(metric_averages, "FLUSH_SECONDS", math.inf)
    waits = []
    trainer = make_trainer(rate=0.2, device="gpu", compile=compile)
    note = lambda running: waits.append((running.epoch, list(strict_device.synchronisations)))
    trainer.fit(*data, epochs=3, batch_size=12, callbacks=[note], **QUIET)
    for epoch in (1, 2, 3):
        within = [seen for number, seen in waits if number == epoch][2:8]  # behind recording and capture
        assert len(within) == 6
        assert all(seen == within[0] for seen in within)
    trainer.evaluate(*data, batch_size=4)  # recording looks at constants
    before = len(strict_device.synchronisations)
    trainer.evaluate(*data, batch_size=4)  # 24 mini-batches
    at_the_end = strict_device.synchronisations[before:]  # the figures of all mini-batches in one transfer
    assert at_the_end == ["synchronize()", "asnumpy()"]


def test_figures_are_fetched_when_they_are_due(strict_gpu, make_trainer, data, monkeypatch):
    seen = []
    trainer = make_trainer(device="gpu")

    def note(running):
        if running.state == "step":
            seen.append(len(running._history.steps.get("loss", [])))

    monkeypatch.setattr(metric_averages, "FLUSH_SECONDS", -1.0)
    trainer.fit(*data, epochs=1, batch_size=24, callbacks=[note], **QUIET)
    monkeypatch.setattr(metric_averages, "FLUSH_SECONDS", math.inf)
    trainer.fit(*data, epochs=1, batch_size=24, callbacks=[note], **QUIET)
    assert seen == [1, 2, 3, 4, 0, 0, 0, 0]
