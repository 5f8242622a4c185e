"""MyGrad: tensors with `backward()`, memory guarding off (its own advice for speed), Adam in place."""

import mygrad as mg
import numpy as np
from mygrad.nnet import relu

from benchmarks.jobs.autoencoder import LAYERS
from benchmarks.peers import Job
from benchmarks.peers.adam_in_numpy import Adam


def loss_of(tensors, x):
    z = x
    for i in LAYERS:
        z = relu(mg.matmul(z, tensors[f"weight{i}"]) + tensors[f"encoder_bias{i}"])
    for i in reversed(LAYERS):
        z = mg.matmul(z, tensors[f"weight{i}"].T) + tensors[f"decoder_bias{i}"]
        if i > 1:
            z = relu(z)
    return mg.mean(mg.maximum(z, 0) - x * z + mg.log1p(mg.exp(-mg.abs(z))))


def build(weights: dict[str, np.ndarray], batch_size: int) -> Job:
    mg.turn_memory_guarding_off()
    tensors = {name: mg.tensor(value.copy()) for name, value in weights.items()}
    optimizer = Adam({name: tensor.data for name, tensor in tensors.items()})

    def step(x):
        loss = loss_of(tensors, x)
        loss.backward()
        optimizer.step({name: tensor.grad for name, tensor in tensors.items()})
        for tensor in tensors.values():
            tensor.null_grad()
        return loss.item()

    def evaluate(x):
        with mg.no_autodiff:
            return float(loss_of(tensors, x))

    def save(path):
        np.savez(path, **optimizer.parameters)

    return Job(prepare=lambda x: x, step=step, evaluate=evaluate, save=save)
