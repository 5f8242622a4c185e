"""Everything that a training needs, in a process without threads and processes; see test_browser.py."""

import sys
from pathlib import Path

from tests.processes import like_a_browser

like_a_browser.begin()

import minidl as dl  # noqa: E402

folder = Path(sys.argv[1])
(x, labels, _), test = dl.data.digits(train=400, test=100)
network = dl.Network([dl.Flatten(), dl.Dense(784, 128, seed=0), dl.ReLU(), dl.Dense(128, 10, seed=1)])
optimizer = dl.Adam(network.parameters(), 2e-3)


def plain(x, labels):
    loss = dl.softmax_cross_entropy(network(x), labels)
    loss.backward()
    optimizer.step()
    return loss


# A large step, which elsewhere C computes on all cores.
step = dl.compile(plain)
losses = [step(x, labels).item() for _ in range(5)]
assert losses == sorted(losses, reverse=True), losses
executor = step.programs[0].executor
assert (executor.kernels, executor.threads) == ("numpy", 1), executor.note()
asked = dl.compile(plain, threads=2)
asked(x, labels)
assert asked.programs[0].executor.threads == 1


class Terminal:
    """What a bar is drawn on."""

    encoding = "utf-8"
    text = ""

    def isatty(self):
        return True

    def write(self, text):
        self.text += text

    def flush(self):
        pass


def mini_batches():
    for start in range(0, 400, 100):
        yield x[start : start + 100], labels[start : start + 100]


errors, sys.stderr = sys.stderr, Terminal()
trainer = dl.Trainer(network, dl.softmax_cross_entropy, optimizer, metrics=[dl.accuracy], device="auto")
files = {"checkpoint_folder": folder / "run", "plot": folder / "run.png"}
trainer.fit(x, labels, epochs=5, batch_size=60, validation_split=0.1, **files)
trainer.fit(mini_batches(), epochs=1, steps_per_epoch=4)  # elsewhere read ahead, by a thread
terminal, sys.stderr = sys.stderr, errors
assert "100%|" in terminal.text, terminal.text
assert trainer.predict(test.images).shape == (100, 10)
assert trainer.evaluate(test.images, test.labels)["accuracy"] > 0.5

network.save(folder / "weights.safetensors")
network.load(folder / "weights.safetensors")
network.plot(784, path=folder / "network.png")
step.programs[0].plot(folder / "program.png")
assert "forward" in str(step.programs[0].profile())
assert dl.check_layer(dl.Dense(6, 3), (6,)).passed
print(dl.devices.report())
