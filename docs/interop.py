"""Measure what docs/interop.md tells of ONNX: differences, sizes of files and times of predictions.

``python -m docs.interop`` prints the table. It needs the extra ``interop``.
"""

import statistics
import tempfile
import time
from pathlib import Path

import numpy
import onnxruntime

import minidl as dl
from examples import character_model, tied_autoencoder

ROWS = 512


def cnn():
    """Return a network for images of 28 x 28 pixels."""
    return dl.Network(
        [
            dl.Conv2D(1, 16, 3, padding="same", seed=0),
            dl.BatchNorm(16),
            dl.ReLU(),
            dl.MaxPool2D(2),
            dl.Conv2D(16, 32, 3, padding="same", seed=1),
            dl.BatchNorm(32),
            dl.ReLU(),
            dl.MaxPool2D(2),
            dl.Flatten(),
            dl.Dense(1568, 10, seed=2),
        ]
    )


def gpt():
    """Return the example's GPT with its default sizes, for 100 characters."""
    return character_model.build_model(character_model.parse_arguments(["--model", "gpt"]), 100)


def networks():
    """Yield the name, the network and the input of each row."""
    random = numpy.random.default_rng(0)
    yield "tied autoencoder", tied_autoencoder.build_network(0), random.random((ROWS, 784), numpy.float32)
    yield "cnn", cnn(), random.random((ROWS, 28, 28, 1), numpy.float32)
    lstm = dl.Network([dl.LSTM(32, 64, seed=0), dl.Dense(64, 10, seed=1)])
    yield "lstm", lstm, random.standard_normal((ROWS, 50, 32), numpy.float32)
    context = character_model.parse_arguments([]).context
    yield "gpt", gpt(), random.integers(0, 100, (ROWS // 8, context))


def seconds(*functions, repeats=9):
    """Return the median time of each function, run one after the other again and again."""
    times = [[] for _ in functions]
    for _ in range(repeats):
        for function, found in zip(functions, times, strict=True):
            start = time.perf_counter()
            function()
            found.append(time.perf_counter() - start)
    return [statistics.median(found[1:]) for found in times]


def measure(name, network, x):
    """Return a row of the table."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "network.onnx"
        network.to_onnx(path, x)
        size = path.stat().st_size
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    argument = session.get_inputs()[0].name
    trainer = dl.Trainer(network, dl.mean_squared_error, device="cpu", seed=0)
    theirs = lambda: session.run(None, {argument: x})[0]
    ours = lambda: trainer.predict(x, batch_size=len(x))
    difference = abs(theirs() - ours()).max()
    parameters = sum(x.size * x.dtype.itemsize for _, x in network.named_tensors())
    run, predict = seconds(theirs, ours)
    return (
        f"| {name} | {len(x)} | {difference:.1e} | {size / 1024:,.0f} | {parameters / 1024:,.0f} | "
        f"{1000 * run:.1f} | {1000 * predict:.1f} | {predict / run:.2f} |"
    )


if __name__ == "__main__":
    titles = ["network", "rows", "largest difference", "file, KiB", "weights, KiB"]
    print("| " + " | ".join([*titles, "ONNX Runtime, ms", "predict, ms", "ratio"]) + " |")
    print("| --- |" + " ---: |" * 7)
    for row in networks():
        print(measure(*row), flush=True)
