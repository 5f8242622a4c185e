"""PyTorch on a GPU: eager with the fused Adam, `torch.compile`, or the whole step in a CUDA graph by hand."""

import numpy as np
import torch

from benchmarks.peers import Job
from benchmarks.peers.torch_autoencoder import TiedAutoencoder, loss_of, make_adam


def build(
    weights: dict[str, np.ndarray],
    batch_size: int,
    way: str = "eager",
    precision: str = "float32",
    device: str = "cuda",
) -> Job:
    torch.backends.cuda.matmul.allow_tf32 = precision == "tf32"
    network = TiedAutoencoder(weights).to(device)
    optimizer = make_adam(network, fused=True, capturable=way == "graph")
    loss_function = loss_of
    if way == "compile":
        loss_function = torch.compile(loss_of, mode="reduce-overhead", dynamic=False)

    def train_step(x):
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast(device, torch.bfloat16, enabled=precision == "bfloat16"):
            loss = loss_function(network, x)
        loss.backward()
        optimizer.step()
        return loss.detach()

    def evaluate(x):
        with torch.inference_mode():
            return loss_of(network, x).item()

    return Job(
        prepare=lambda x: torch.from_numpy(x).to(device),
        step=captured(train_step, network, optimizer, batch_size) if way == "graph" else train_step,
        evaluate=evaluate,
        save=lambda path: torch.save(network.state_dict(), path),
        wait=torch.cuda.synchronize if device == "cuda" else lambda: None,
    )


def captured(train_step, network, optimizer, batch_size: int):
    """The step as a CUDA graph, the way PyTorch's documentation shows; what the warm-up changed is undone."""
    batch = torch.rand(batch_size, network.encoder[0].in_features, device="cuda")
    before = [parameter.detach().clone() for parameter in network.parameters()]
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            train_step(batch)
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        loss = train_step(batch)
    with torch.no_grad():
        for parameter, value in zip(network.parameters(), before, strict=True):
            parameter.copy_(value)
        for state in optimizer.state.values():
            for value in state.values():
                value.zero_()

    def step(x):
        batch.copy_(x)
        graph.replay()
        return loss

    return step
