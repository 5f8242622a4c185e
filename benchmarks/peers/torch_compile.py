"""PyTorch compiled: forward, loss and backward by `torch.compile`, the update by the fused Adam.

Of the forms tried (the whole step with compiled autograd, the optimizer compiled too, mode default or
max-autotune-no-cudagraphs) this one was the fastest, or within noise of it, at each batch size.
"""

import numpy as np
import torch

from benchmarks.peers import Job
from benchmarks.peers.torch_autoencoder import TiedAutoencoder, loss_of, make_adam, make_job


def build(weights: dict[str, np.ndarray], batch_size: int) -> Job:
    network = TiedAutoencoder(weights)
    optimizer = make_adam(network, fused=True)
    compiled_loss = torch.compile(loss_of, mode="max-autotune-no-cudagraphs", dynamic=False)

    def train_step(x):
        optimizer.zero_grad(set_to_none=True)
        loss = compiled_loss(network, x)
        loss.backward()
        optimizer.step()
        return loss.detach()

    return make_job(
        network, train_step, loss_of
    )  # evaluated eagerly: one batch an epoch is not worth a compilation
