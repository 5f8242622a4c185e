import sys

import minidl as dl
from minidl.training import bars
from tests.training.helpers import QUIET


def test_the_header_says_why_there_is_no_gpu(make_trainer, data, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "cupy", None)
    make_trainer(device="auto").fit(*data, epochs=1, plot=False)
    assert "96 observations, on cpu (CuPy is not installed)\n" in capsys.readouterr().out


def test_lines_where_nobody_watches(make_trainer, data, capsys):
    make_trainer().fit(*data, epochs=3, batch_size=32, validation_data=data, verbose_frequency=4)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "training 114 parameters on 96 observations, on cpu"
    assert lines[1].startswith("epoch 2/3, step 4/9: loss ")
    assert [line.partition(":")[0] for line in lines[1:4]] == [
        "epoch 2/3, step 4/9",
        "epoch 3/3, step 8/9",
        "epoch 3/3, step 9/9",
    ]
    assert "validation loss" in lines[3]
    assert "learning rate 0.001" in lines[3]
    assert lines[4].startswith("all epochs completed after ")


def test_a_bar_where_somebody_watches(make_trainer, data, capsys, monkeypatch):
    monkeypatch.setattr(bars.sys.stderr, "isatty", lambda: True)
    trainer = make_trainer()
    trainer.fit(*data, epochs=3, batch_size=32, validation_data=data)
    trainer.predict(data[0], batch_size=10, verbose=True)
    output = capsys.readouterr()
    assert output.out == ""
    assert "epoch 3/3 100%" in output.err
    assert "validation" in output.err
    assert "rate 0.001" in output.err
    assert "predicting" in output.err


def test_quiet(make_trainer, data, capsys):
    make_trainer().fit(*data, epochs=1, validation_data=data, **QUIET)
    make_trainer().predict(data[0])
    output = capsys.readouterr()
    assert output.out == output.err == ""


def test_lbfgs_shows_its_progress(make_trainer, data, capsys):
    trainer = make_trainer(optimizer=lambda network: dl.LBFGS(network.parameters(), max_iterations=3))
    trainer.fit(*data, verbose_frequency=1)
    assert "step 2/3: loss" in capsys.readouterr().out
