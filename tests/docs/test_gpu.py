"""The page about GPUs: its code runs, here on the stand-in for a GPU."""

import re
from pathlib import Path

import numpy

import minidl as dl

PAGE = (Path(__file__).parents[2] / "docs/guides/gpu.md").read_text()


def test_the_code_of_the_page_trains_on_a_gpu(gpu, capsys):
    blocks = re.findall(r"^```python\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
    assert len(blocks) == 2
    rng = numpy.random.default_rng(0)
    images, labels = rng.random((256, 12), dtype="float32"), rng.integers(0, 3, 256)
    network = dl.Network([dl.Dense(12, 3, seed=0)])
    before = network[0].weight.numpy()
    names = {"dl": dl, "network": network, "images": images, "labels": labels}
    for block in blocks:
        exec(block, names)
    assert network[0].weight.device == names["loss"].device == "gpu:0"
    assert not numpy.array_equal(network[0].weight.numpy(), before)
    assert "on gpu:0" in capsys.readouterr().out
