import os
import signal

import pytest

from tests.training.helpers import QUIET


def test_ctrl_c_stops_after_the_step_with_the_best_network(overfitting, capsys):
    trainer, data, options = overfitting

    def interrupt(fit):
        if fit.state == "step" and fit.step == 61:
            os.kill(os.getpid(), signal.SIGINT)

    history = trainer.fit(*data, epochs=100, callbacks=[interrupt], **options)
    assert history.stop_reason == "stopped by Ctrl-C"
    assert len(history) == 61
    assert history.validation["step"][-1] == 61
    assert history.returned == "best"
    assert "press Ctrl-C again" in capsys.readouterr().err


def test_ctrl_c_twice_interrupts_at_once(make_trainer, data):
    def interrupt(fit):
        if fit.step == 2:
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGINT)

    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        make_trainer().fit(*data, epochs=5, batch_size=32, callbacks=[interrupt], **QUIET)
    assert signal.getsignal(signal.SIGINT) is before
