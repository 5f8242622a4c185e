"""minidl on a GPU: the textbook step, compiled or eager."""

import numpy as np

import minidl as dl
from benchmarks.jobs.autoencoder import BETA1, BETA2, EPSILON, L2, LEARNING_RATE
from benchmarks.peers import Job
from benchmarks.peers.minidl_eager import make_network


def build(
    weights: dict[str, np.ndarray], batch_size: int, compiled: bool = True, precision: str = "float32"
) -> Job:
    import cupy

    network = make_network(weights).to("gpu")
    optimizer = dl.Adam(
        network.parameters(), learning_rate=LEARNING_RATE, beta1=BETA1, beta2=BETA2, epsilon=EPSILON, l2=L2
    )

    def train_step(x):
        loss = dl.binary_cross_entropy(network(x), x)
        loss.backward()
        optimizer.step()
        return loss

    def loss_of(x):
        with dl.no_grad():
            return dl.binary_cross_entropy(network(x), x)

    if compiled:
        train_step = dl.compile(train_step, precision=precision)
    return Job(
        prepare=lambda x: dl.tensor(x, device="gpu"),
        step=train_step,
        evaluate=lambda x: loss_of(x).item(),
        save=network.save,
        wait=lambda: cupy.cuda.get_current_stream().synchronize(),
    )
