"""PyTorch, eager, with its default Adam."""

import numpy as np

from benchmarks.peers import Job
from benchmarks.peers.torch_autoencoder import TiedAutoencoder, loss_of, make_adam, make_job


def build(weights: dict[str, np.ndarray], batch_size: int, **adam_options) -> Job:
    network = TiedAutoencoder(weights)
    optimizer = make_adam(network, **adam_options)

    def train_step(x):
        optimizer.zero_grad(set_to_none=True)
        loss = loss_of(network, x)
        loss.backward()
        optimizer.step()
        return loss.detach()

    return make_job(network, train_step, loss_of)
