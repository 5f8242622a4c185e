"""A short training that writes a checkpoint at every step, for tests that kill it.

`python -m tests.training.killed FOLDER [SLEEP]`
"""

import sys
import time

import numpy

import minidl as dl


def main(folder, sleep):
    rng = numpy.random.default_rng(5)
    x = rng.normal(size=(96, 4)).astype("float32")
    y = (x[:, :2] * x[:, 2:]).astype("float32")
    network = dl.Network(
        [dl.Dense(4, 16, seed=1), dl.Tanh(), dl.Dropout(0.2, seed=2), dl.Dense(16, 2, seed=3)]
    )
    optimizer = dl.Adam(network.parameters(), learning_rate=dl.schedules.Cosine(0.01, steps=60))
    trainer = dl.Trainer(network, dl.mean_squared_error, optimizer, metrics=[dl.rmse], seed=4, device="cpu")
    print("ready", flush=True)
    history = trainer.fit(
        x,
        y,
        epochs=10,
        batch_size=16,
        validation_data=(x, y),
        validation_frequency=7,
        checkpoint_folder=folder,
        checkpoint_frequency=1,
        resume=True,
        verbose=False,
        callbacks=[lambda fit: time.sleep(sleep)],
    )
    network.save(f"{folder}/final.safetensors")
    history.to_json(f"{folder}/history.json")


if __name__ == "__main__":
    main(sys.argv[1], float(sys.argv[2]) if len(sys.argv) > 2 else 0.0)
