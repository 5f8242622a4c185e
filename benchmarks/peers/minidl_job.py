"""What minidl's peers of all jobs share: how a textbook step is run."""

import numpy as np

import minidl as dl
from benchmarks.peers import Job


def fill(network: dl.Layer, parameters: dict[dl.Parameter, np.ndarray], dtype: str) -> dl.Layer:
    """Give the network its weights; each has an own Parameter."""
    assert set(map(id, parameters)) == set(map(id, network.parameters()))
    for parameter, value in parameters.items():
        parameter.assign(value)
    return network.astype(dtype)


def make_job(network, optimizer, loss_of, kernels: str | None, dtype: str) -> Job:
    """`loss_of(network, x, target)`; `kernels` are those of `dl.compile`, or None for the plain function."""

    def train_step(x, target):
        loss = loss_of(network, x, target)
        loss.backward()
        optimizer.step()
        return loss

    if kernels is not None:
        train_step = dl.compile(train_step, kernels=kernels)

    def prepare(batch):
        x, target = batch
        return dl.tensor(x.astype(dtype) if x.dtype.kind == "f" else x), dl.tensor(target)

    return Job(prepare=prepare, step=lambda batch: train_step(*batch).item())
