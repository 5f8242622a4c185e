"""The training step on several processes, beside one alone and PyTorch's DDP on gloo, in the same run.

    mpiexec -n 2 python -m benchmarks.distributed --batch-size 1024 --rounds 5

All processes use one thread. In each round, every kind of step gets a block of a few steps, one kind after
another, so that what else the machine does disturbs all alike; the medians and the least of all steps are
printed as JSON, with the load of the machine. The job is the weight-tied autoencoder 784-784-392-196, with
binary cross-entropy and Adam, without L2.
"""

import argparse
import json
import os
import statistics
import tempfile
import time
from itertools import pairwise

os.environ["OMP_NUM_THREADS"] = "1"

import numpy as np

import minidl as dl

SIZES = (784, 784, 392, 196)


class Autoencoder(dl.Layer):
    def __init__(self):
        self.dense = [dl.Dense(a, b, seed=i) for i, (a, b) in enumerate(pairwise(SIZES))]
        self.biases = [dl.Parameter(dl.zeros(layer.in_features)) for layer in self.dense]

    def forward(self, x):
        for layer in self.dense:
            x = dl.relu(layer(x))
        for layer, bias in list(zip(self.dense, self.biases, strict=True))[:0:-1]:
            x = dl.relu(x @ layer.weight.T + bias)
        return dl.sigmoid(x @ self.dense[0].weight.T + self.biases[0])


def minidl_step(ranks, kernels, reproducible=False):
    network = Autoencoder()
    trainer = dl.Trainer(
        network,
        dl.binary_cross_entropy,
        dl.Adam(network.parameters(), 1e-3),
        device="cpu",
        compile={"kernels": kernels, "threads": 1},
        distributed=ranks,
        reproducible=reproducible,
    )
    from minidl.training.arrays import part
    from minidl.training.ranks import micro_batches

    def step(x):
        share = ranks.share(len(x), micro_batches(len(x)) if reproducible else None)
        own = (x[share.rows],)
        if ranks.size == 1 and not reproducible:
            loss, _, _ = trainer.take_step(own, own)
        else:
            loss, _, _ = trainer.take_step(part(own, share), part(own, share))
        return float(loss)

    return step, trainer


def torch_step(ranks, alone):
    import torch
    from torch import nn
    from torch.nn import functional

    torch.set_num_threads(1)
    torch.manual_seed(0)

    class Network(nn.Module):
        def __init__(self):
            super().__init__()
            self.dense = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(SIZES))
            self.biases = nn.ParameterList(nn.Parameter(torch.zeros(a)) for a in SIZES[:-1])

        def forward(self, x):
            for layer in self.dense:
                x = torch.relu(layer(x))
            for i in range(len(self.dense) - 1, -1, -1):
                x = functional.linear(x, self.dense[i].weight.T, self.biases[i])
                x = torch.relu(x) if i else x
            return x

    network = Network()
    if not alone:
        network = nn.parallel.DistributedDataParallel(network, gradient_as_bucket_view=True)
    optimizer = torch.optim.Adam(network.parameters(), 1e-3, fused=True)

    def step(x):
        share = slice(None) if alone else ranks.share(len(x)).rows
        own = torch.from_numpy(x[share])
        optimizer.zero_grad()
        loss = functional.binary_cross_entropy_with_logits(network(own), own)
        loss.backward()
        optimizer.step()
        return float(loss.detach())

    return step


def sleeping_barrier(ranks, folder, name):
    """Wait for all processes without keeping a core busy: the others are at work."""
    open(os.path.join(folder, f"{name}-{ranks.rank}"), "w").close()
    while len([entry for entry in os.listdir(folder) if entry.startswith(f"{name}-")]) < ranks.size:
        time.sleep(0.002)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--batch-size", type=int, default=1024)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--kernels", default="auto")
    parser.add_argument("--no-torch", action="store_true")
    parser.add_argument("--profile", action="store_true", help="print the profile of the step of rank 0")
    options = parser.parse_args()
    ranks, alone = dl.distributed.communicator(), dl.distributed.Communicator()
    folder = ranks.broadcast(tempfile.mkdtemp())
    x = np.random.default_rng(0).uniform(size=(options.batch_size, SIZES[0])).astype("float32")
    kinds = {
        "minidl, 1 process": (minidl_step(alone, options.kernels)[0], True),
        "minidl, reproducible, 1 process": (minidl_step(alone, options.kernels, True)[0], True),
    }
    together, trainer = minidl_step(ranks, options.kernels)
    if ranks.size > 1:
        kinds[f"minidl, {ranks.size} processes"] = (together, False)
        kinds[f"minidl, reproducible, {ranks.size} processes"] = (
            minidl_step(ranks, options.kernels, True)[0],
            False,
        )
    if not options.no_torch:
        import torch.distributed as torch_distributed

        torch_distributed.init_process_group(
            "gloo", init_method=f"file://{folder}/gloo", rank=ranks.rank, world_size=ranks.size
        )
        kinds["PyTorch, 1 process"] = (torch_step(ranks, True), True)
        if ranks.size > 1:
            kinds[f"PyTorch DDP, {ranks.size} processes"] = (torch_step(ranks, False), False)
    times = {name: [] for name in kinds}
    for turn in range(options.rounds + 1):
        for number, (name, (step, is_alone)) in enumerate(kinds.items()):
            sleeping_barrier(ranks, folder, f"{turn}.{number}")
            if is_alone and not ranks.is_first:
                continue
            step(x)
            for _ in range(options.steps):
                started = time.perf_counter()
                step(x)
                if turn:  # the first round warms up
                    times[name].append(time.perf_counter() - started)
    sleeping_barrier(ranks, folder, "end")
    if options.profile:
        profile = trainer.train_step.programs[0].profile(repeats=5)
        if ranks.is_first:
            print(profile)
    if ranks.is_first:
        result = {
            name: {"median_ms": 1e3 * statistics.median(seconds), "least_ms": 1e3 * min(seconds)}
            for name, seconds in times.items()
        }
        print(json.dumps({"batch_size": options.batch_size, "load": os.getloadavg(), **result}, indent=1))


if __name__ == "__main__":
    main()
