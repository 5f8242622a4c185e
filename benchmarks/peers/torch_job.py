"""What PyTorch's peers of all jobs share: how a step is run, eager or compiled."""

import torch

from benchmarks.peers import Job


def assign(pairs) -> None:
    """Copy NumPy arrays to parameters: ``pairs`` of both."""
    with torch.no_grad():
        for parameter, value in pairs:
            parameter.copy_(torch.from_numpy(value))


def make_job(network, optimizer, loss_of, compiled: bool, prepare=None, before_step=lambda: None) -> Job:
    """`loss_of(network, x, target)`; `prepare` makes tensors of a batch.

    `before_step` comes before the update. Compiled are forward, loss and backward; the optimizer is fused.
    """
    loss_function = torch.compile(loss_of, dynamic=False) if compiled else loss_of

    def train_step(x, target):
        optimizer.zero_grad(set_to_none=True)
        loss = loss_function(network, x, target)
        loss.backward()
        before_step()
        optimizer.step()
        return loss.detach()

    return Job(
        prepare=prepare or (lambda batch: tuple(map(torch.from_numpy, batch))),
        step=lambda batch: train_step(*batch).item(),
    )
