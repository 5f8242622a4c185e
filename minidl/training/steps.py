"""CompiledSteps: the functions of a training that work on one mini-batch, compiled."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from operator import index
from typing import Any

import numpy

from minidl import devices
from minidl.data import prefetch_to_device
from minidl.distributed.communicators import Communicator
from minidl.distributed.share import Share, sharing
from minidl.distributed.sums import sum_gradients, summed_later
from minidl.layers import Layer
from minidl.metrics import Metric
from minidl.mode import no_grad
from minidl.optimizers.base import BaseOptimizer
from minidl.optimizers.optimizer import Optimizer
from minidl.program.compile import compile as compile_function
from minidl.tensor import Tensor
from minidl.tracking import Tracked
from minidl.training.loaders import Arrays, Batch, converted, part, prepared, share_of
from minidl.training.ranks import OrderedSums, device_of_rank, options_of_rank, processes
from minidl.training.solvers import optimizer_of


class CompiledSteps(Tracked):
    """A network, its loss, optimizer and metrics, and what is done with them for each mini-batch.

    A Trainer adds the loops over the data; its documentation describes the parameters. Steps take a tuple
    of input arrays and a tuple of target arrays, as ``prepared`` returns them.
    """

    def __init__(
        self,
        network: Layer,
        loss: Callable[..., Tensor],
        optimizer: BaseOptimizer | str,
        metrics: Sequence[Callable[..., Tensor]],
        *,
        device: str,
        compile: bool | dict[str, Any],
        seed: int | None,
        distributed: bool | Communicator = False,
        reproducible: bool = False,
    ):
        if not isinstance(network, Layer):
            raise TypeError(f"Trainer trains a Layer, got {type(network).__name__}")
        self.ranks = processes(distributed)
        self.is_reproducible = bool(reproducible)
        device = device_of_rank(device, self.ranks)
        self.device = devices.resolve(device)
        self.why_cpu = devices.gpu_problem() if device == "auto" and self.device == "cpu" else None
        self.network = network.to(self.device)
        self.loss = loss
        self.optimizer = optimizer  # a name too
        self.metrics = metrics  # a sequence too
        drawn = int(numpy.random.SeedSequence().generate_state(1)[0]) if seed is None else index(seed)
        self.seed = self.ranks.broadcast(drawn)
        options = compile if isinstance(compile, dict) else {}
        options = options_of_rank(options, self.ranks, reproducible)
        compiled = compile_function(**options) if compile or isinstance(compile, dict) else lambda f: f
        self.train_step = compiled(self._train_step)
        self.gradient_step = compiled(self._gradient_step)
        self.update_step = compiled(self._update_step)
        self.evaluation_step = compiled(self.plain_evaluation_step)
        self.prediction_step = compiled(self.plain_prediction_step)

    @property
    def optimizer(self) -> BaseOptimizer:
        """What trains the network; set it to an optimizer or the name of one."""
        return self._optimizer

    @optimizer.setter
    def optimizer(self, optimizer: BaseOptimizer | str) -> None:
        self._optimizer = optimizer_of(self.network, optimizer)

    @property
    def metrics(self) -> dict[str, Callable[..., Tensor]]:
        """The metrics by their names; set them to a sequence of metrics and functions."""
        return self._metrics

    @metrics.setter
    def metrics(self, metrics: Sequence[Callable[..., Tensor]] | dict[str, Callable[..., Tensor]]) -> None:
        several = list(metrics.values() if isinstance(metrics, dict) else metrics)
        by_name = {_name(metric): metric for metric in several}
        if len(by_name) < len(several) or "loss" in by_name:
            raise ValueError(
                f"metrics need different names, none of them 'loss'; got {[*map(_name, several)]}"
            )
        self._metrics = by_name

    def __repr__(self) -> str:
        metrics = "".join(f", {name}" for name in self.metrics)
        network, loss = type(self.network).__name__, _name(self.loss)
        return (
            f"{type(self).__name__}({network}, {loss}, {self.optimizer!r}{metrics}, device={self.device!r})"
        )

    def _outputs(self, inputs: Arrays) -> tuple[Any, ...]:
        outputs = self.network(*_tensors(inputs))
        return tuple(outputs) if isinstance(outputs, (tuple, list)) else (outputs,)

    def _observations(
        self, outputs: tuple[Any, ...], targets: tuple[Any, ...], names: list[str]
    ) -> list[Tensor]:
        """Return what each metric observes in a mini-batch."""
        metrics = [self.metrics[name] for name in names]
        with no_grad():
            return [
                (metric.observe if isinstance(metric, Metric) else metric)(*outputs, *targets)
                for metric in metrics
            ]

    def train(self, inputs: Arrays, targets: Arrays) -> Any:
        """Make one step with a mini-batch, or this process's part of it.

        Returns the loss, what metrics observe, and the learning rate: those of the whole mini-batch.
        """
        share = share_of(targets)
        if not self.is_reproducible:
            return self.train_step(tuple(inputs), tuple(targets), *([] if share is None else [share]))
        loss, observed = self._ordered_gradients(inputs, targets)
        return loss, observed, self.update_step()

    def gradients(self, inputs: Arrays, targets: Arrays) -> Any:
        """Compute the gradients of a mini-batch, or of this process's part; return loss and metrics."""
        share = share_of(targets)
        if not self.is_reproducible:
            return self.gradient_step(tuple(inputs), tuple(targets), *([] if share is None else [share]))
        return self._ordered_gradients(inputs, targets)

    def _ordered_gradients(self, inputs: Arrays, targets: Arrays) -> Any:
        """Compute the gradients micro-batch by micro-batch, and add them up in one order."""
        whole = share_of(targets)
        assert whole is not None
        sums = OrderedSums(self.network, self.optimizer.parameters, whole)
        for number, rows in sums.own:
            share = sums.begin(number, rows)
            own = {id(x): x[rows] for x in (*inputs, *targets)}
            arrays = [tuple(own[id(x)] for x in several) for several in (inputs, targets)]
            loss, observed = self.gradient_step(*arrays, share)
            sums.add(share, [loss, *observed])
        loss, *observed = sums.finish()
        return loss, observed

    def _train_step(self, inputs: Arrays, targets: Arrays, share: Share | None = None) -> Any:
        loss, observed = self._gradient_step(inputs, targets, share)
        return loss, observed, self._update_step()

    def _update_step(self) -> Tensor:
        assert isinstance(self.optimizer, Optimizer)
        self.optimizer.step()
        return self.optimizer.learning_rate.copy()

    def _gradient_step(self, inputs: Arrays, targets: Arrays, share: Share | None = None) -> Any:
        with sharing(share):
            outputs, targets = self._outputs(inputs), _tensors(targets)
            loss = self.loss(*outputs, *targets)
        loss = loss if share is None else loss * share.weight
        loss.backward()
        trained = {id(parameter) for parameter in self.optimizer.parameters}
        for parameter in self.network.parameters():
            if id(parameter) not in trained:  # the optimizer would not clear what backward leaves there
                parameter.grad = None
        observed = self._observations(outputs, targets, self.step_metrics)
        if share is None:
            return loss, observed
        figures = [loss.detach(), *(x * share.weight for x in observed)]
        loss, *observed = [summed_later(x, share.communicator) for x in figures]
        sum_gradients(self.optimizer.parameters, share.communicator)
        return loss, observed

    @no_grad()
    def plain_evaluation_step(self, inputs: Arrays, targets: Arrays) -> Any:
        """Return the loss, what metrics observe, and outputs that other metrics need, of one mini-batch."""
        outputs, targets = self._outputs(inputs), _tensors(targets)
        loss = self.loss(*outputs, *targets)
        averaged = [name for name, metric in self.metrics.items() if isinstance(metric, Metric)]
        kept = outputs if len(averaged) < len(self.metrics) else ()
        return loss, self._observations(outputs, targets, averaged), kept

    @no_grad()
    def plain_prediction_step(self, inputs: Arrays) -> Any:
        """Return the outputs of one mini-batch."""
        return self._outputs(inputs)

    @property
    def step_metrics(self) -> list[str]:
        """The names of the metrics that are computed at every step."""
        return [name for name, metric in self.metrics.items() if getattr(metric, "in_steps", True)]

    @property
    def dtype(self) -> numpy.dtype:
        """The dtype that the network computes in."""
        return self.optimizer.parameters[0].dtype

    def uploaded(self, batches: Iterable[Batch]) -> Iterator[Batch]:
        """Yield mini-batches as the steps take them, each uploaded while the one before is computed with."""
        if self.device == "cpu":
            return (self.prepared(*batch) for batch in batches)
        shares: deque[Share | None] = deque()

        def noted() -> Iterator[Batch]:
            for batch in batches:
                shares.append(share_of(batch[1]))
                yield converted(batch, self.dtype)

        def uploads() -> Iterator[Batch]:
            for inputs, targets in prefetch_to_device(noted(), self.device):
                share = shares.popleft()
                yield part(inputs, share), part(targets, share)

        return uploads()

    def prepared(self, inputs: Arrays, targets: Arrays = ()) -> Batch:
        """Return a mini-batch as the steps take it."""
        return prepared((inputs, targets), self.dtype, self.device)


def _tensors(arrays: Arrays) -> tuple[Tensor, ...]:
    """Return arrays as Tensors, without the copy that tensor() makes: nothing writes to them."""
    return tuple(x if isinstance(x, Tensor) else Tensor(x) for x in arrays)


def _name(metric: Any) -> str:
    return getattr(metric, "__name__", type(metric).__name__)
