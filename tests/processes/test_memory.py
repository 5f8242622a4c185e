"""The memory of a process does not grow with the number of lengths that its inputs have."""

import subprocess
import sys

import pytest

from tests.program.networks import needs_c

SCRIPT = """
import resource, sys, warnings
import numpy
import minidl as dl

what, lengths = sys.argv[1], int(sys.argv[2])
warnings.simplefilter("ignore")
batches = [numpy.zeros((200 - i % lengths, 784), "float32") for i in range(120)]
network = dl.Network([dl.Dense(784, 256, seed=0), dl.ReLU(), dl.Dense(256, 784, seed=1)])
optimizer = dl.Adam(network.parameters(), 1e-3)
trainer = dl.Trainer(network, dl.mean_squared_error, optimizer)

@dl.compile
def step(x):
    optimizer.zero_grad()
    loss = dl.mean_squared_error(network(x), x)
    loss.backward()
    optimizer.step()
    return loss

if what == "compile":
    for x in batches:
        step(dl.tensor(x))
elif what == "fit":
    trainer.fit([(x, x) for x in batches], epochs=1)
else:
    for x in batches:
        trainer.predict(x)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


@needs_c
@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="compares what Linux counts in kibibytes")
@pytest.mark.parametrize("what", ["compile", "fit", "predict"])
def test_60_lengths_take_at_most_one_and_a_half_times_the_memory_of_one(what, tmp_path):
    def most(lengths):
        command = [sys.executable, "-c", SCRIPT, what, str(lengths)]
        told = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path).stdout
        return int(told.splitlines()[-1])

    assert most(60) <= 1.5 * most(1)
