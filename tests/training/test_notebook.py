"""Notebooks show pictures, progress and a Stop button without any set-up: a real kernel runs their cells."""

import importlib
import re
import time
from contextlib import contextmanager

import pytest

nbformat = pytest.importorskip("nbformat", reason="notebooks are executed with the extra `test`")
nbclient = pytest.importorskip("nbclient", reason="notebooks are executed with the extra `test`")
nbconvert = pytest.importorskip("nbconvert", reason="notebooks are executed with the extra `test`")
pytest.importorskip("ipykernel", reason="notebooks are executed with the extra `test`")

PREPARE = """
import numpy, minidl as dl

x = numpy.random.default_rng(0).random((96, 8), dtype=numpy.float32)
network = dl.Network([dl.Dense(8, 6, seed=0), dl.ReLU(), dl.Dense(6, 8, seed=1)])
trainer = dl.Trainer(network, dl.mean_squared_error, metrics=[dl.rmse], device="cpu", seed=0)
"""
CELLS = [
    PREPARE,
    "network.plot(8)",
    "history = trainer.fit(x, x, epochs=3, batch_size=32, validation_data=(x, x), plot=True)",
    "history.plot()",
    "trainer.predict(x, batch_size=8, verbose=True).shape",
    "step = dl.compile(lambda x: network(x).sum())\nstep(x)\nstep.programs[0].plot(repeats=1)",
    "import sys\nprint([name for name in ('matplotlib.pyplot', 'tqdm') if name in sys.modules])",
]
PLOT, FIT, HISTORY, PREDICT, PROGRAM, MODULES = range(1, 7)


@pytest.fixture(scope="module")
def notebook():
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in CELLS])
    book.metadata.kernelspec = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbclient.NotebookClient(book, timeout=120, kernel_name="python3").execute()
    return book


def data_of(cell, mime):
    return [output.data[mime] for output in cell.outputs if mime in output.get("data", {})]


@pytest.mark.parametrize("number", [PLOT, HISTORY, PROGRAM])
def test_plots_are_shown(notebook, number):
    (result,) = notebook.cells[number].outputs
    assert result.output_type == "execute_result"
    assert result.data["image/png"].startswith("iVBOR")  # the signature of a PNG, in base64
    assert result.metadata["image/png"]["width"] > 300


def test_nothing_had_to_be_set_up(notebook):
    assert notebook.cells[MODULES].outputs[0].text == "[]\n"


def test_a_training_shows_its_bar_and_its_plot(notebook):
    outputs = notebook.cells[FIT].outputs
    assert not [output for output in outputs if output.get("name") == "stderr"]
    bars = [html for html in data_of(notebook.cells[FIT], "text/html") if html]
    assert len(bars) == 1
    assert 'value="9" max="9"' in bars[0]
    assert re.search(r"epoch 3/3 · 100 % · 0:\d\d · loss 0\.\d+, rmse 0\.\d+, validation", bars[0])
    assert len(data_of(notebook.cells[FIT], "image/png")) == 1
    text = "".join(output.text for output in outputs if output.output_type == "stream")
    assert "training 110 parameters on 96 observations, on cpu\n" in text
    assert "all epochs completed after" in text


def test_no_button_is_left(notebook):
    assert not data_of(notebook.cells[FIT], "application/vnd.jupyter.widget-view+json")


def test_a_bar_of_a_prediction_goes_away(notebook):
    assert data_of(notebook.cells[PREDICT], "text/html") == [""]
    assert data_of(notebook.cells[PREDICT], "text/plain") == ["", "(96, 8)"]


def test_bar_and_pictures_are_there_in_an_exported_page(notebook):
    page, _ = nbconvert.HTMLExporter().from_notebook_node(notebook)
    assert page.count("<progress") == 1
    assert page.count('src="data:image/png;base64,') == 4
    assert 'jp-RenderedText jp-OutputArea-output" data-mime-type="application/vnd.jupyter.stderr' not in page


@contextmanager
def kernel():
    from jupyter_client.manager import start_new_kernel

    manager, client = start_new_kernel(kernel_name="python3")
    try:
        yield manager, client
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)


LONG = PREPARE + "history = trainer.fit(x, x, epochs=10**6, batch_size=32, plot={plot})"


def text_of(client, code):
    """Return what a cell prints."""
    text = []
    client.execute_interactive(
        code, timeout=60, output_hook=lambda m: text.append(m["content"].get("text", ""))
    )
    return "".join(text)


def test_the_stop_button_stops():
    pytest.importorskip("ipywidgets", reason="the button needs the extra `notebook`")
    ipykernel = importlib.import_module("ipykernel")
    if ipykernel.version_info[:2] < (7, 4):
        pytest.skip("this version of ipykernel hears clicks while a cell runs only from JupyterLab")
    with kernel() as (_, client):
        client.execute(LONG.format(plot=True))
        button = _wait_for_button(client)
        content = {"comm_id": button, "data": {"method": "custom", "content": {"event": "click"}}}
        client.shell_channel.send(client.session.msg("comm_msg", content))
        assert client.get_shell_msg(timeout=60)["content"]["status"] == "ok"
        assert "stopped by the Stop button" in text_of(client, "print(history.stop_reason)")


def _wait_for_button(client):
    """Return the name of the button's line to the kernel, when the training has begun."""
    button = None
    end = time.monotonic() + 60
    while time.monotonic() < end:
        message = client.get_iopub_msg(timeout=60)
        content = message["content"]
        if message["msg_type"] == "comm_open":
            if content["data"].get("state", {}).get("_model_name") == "ButtonModel":
                button = content["comm_id"]
        elif button and message["msg_type"] == "update_display_data":
            return button
        elif message["msg_type"] == "error":
            raise AssertionError("\n".join(content["traceback"]))
    raise AssertionError("no button was shown")


def test_interrupting_the_kernel_ends_a_training_in_order():
    with kernel() as (manager, client):
        client.execute(LONG.format(plot=False))
        while client.get_iopub_msg(timeout=60)["msg_type"] != "update_display_data":
            pass
        manager.interrupt_kernel()
        assert client.get_shell_msg(timeout=60)["content"]["status"] == "ok"
        assert "stopped by Ctrl-C" in text_of(client, "print(history.stop_reason)")
