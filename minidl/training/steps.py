"""CompiledSteps: the functions of a training that work on one mini-batch, compiled."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from operator import index
from typing import Any

import numpy

from minidl import devices, losses
from minidl import metrics as module_of_metrics
from minidl.data import prefetch_to_device
from minidl.distributed.communicators import Communicator
from minidl.distributed.share import Share, sharing
from minidl.distributed.sums import allreduce, sum_gradients, summed_later
from minidl.layers import Layer
from minidl.layers.layer import layer_hook
from minidl.metrics import Metric
from minidl.mode import no_grad
from minidl.observation_weights import ratio
from minidl.optimizers.base import BaseOptimizer
from minidl.optimizers.optimizer import Optimizer
from minidl.primitives.shape import stack
from minidl.program.compile import compile as compile_function
from minidl.tensor import Tensor
from minidl.tracking import Tracked
from minidl.training.arrays import Arrays, Batch, converted, part, prepared, share_of
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
        _require_function("loss", loss)
        self.ranks = processes(distributed)
        self.is_reproducible = bool(reproducible)
        device = device_of_rank(device, self.ranks)
        self.device = devices.resolve(device)
        self.why_cpu = devices.gpu_problem() if device == "auto" and self.device == "cpu" else None
        self.network = network.to(self.device)
        self.loss = loss
        self.optimizer = optimizer  # a name too
        self.metrics = metrics  # a sequence too
        self.accumulation_steps = 1
        self.seed_is_given = seed is not None
        drawn = int(numpy.random.SeedSequence().generate_state(1)[0]) if seed is None else index(seed)
        self.seed = self.ranks.broadcast(drawn)
        options = compile if isinstance(compile, dict) else {}
        options = options_of_rank(options, self.ranks, reproducible)
        to_compile = bool(compile) or isinstance(compile, dict)
        compiled: Callable[..., Any] = compile_function(**options) if to_compile else lambda f: f
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
        if callable(metrics) or isinstance(metrics, str):
            raise TypeError(f"metrics is a list of functions: write metrics=[dl.{_name(metrics)}]")
        if metrics is None:
            raise TypeError("metrics is a list of functions, got None: leave it out, or write ()")
        several = list(metrics.values() if isinstance(metrics, dict) else metrics)
        for metric in several:
            _require_function("a metric", metric)
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

    @no_grad()
    def _observations(
        self, outputs: tuple[Any, ...], targets: tuple[Any, ...], names: list[str]
    ) -> list[Tensor]:
        """Return what each metric observes in a mini-batch."""
        metrics = [self.metrics[name] for name in names]
        return [
            (metric.observe if isinstance(metric, Metric) else metric)(*outputs, *targets)
            for metric in metrics
        ]

    def take_step(self, *batch: Arrays) -> Any:
        """Make one step with a mini-batch, or this process's part of it.

        Returns the loss, what metrics observe, and the learning rate: those of the whole mini-batch.
        """
        if not self.is_reproducible:
            return self.train_step(*_with_share(batch))
        loss, observed = self._ordered_gradients(*batch)
        return loss, observed, self.update_step()

    def gradients(self, *batch: Arrays) -> Any:
        """Compute the gradients of a mini-batch, or of this process's part; return loss and metrics."""
        if not self.is_reproducible:
            return self.gradient_step(*_with_share(batch))
        return self._ordered_gradients(*batch)

    def _ordered_gradients(self, *batch: Arrays) -> Any:
        """Compute the gradients micro-batch by micro-batch, and add them up in one order."""
        whole = share_of(batch[0])
        assert whole is not None
        if len(batch) > 2:
            raise ValueError("reproducible=True takes no weights of observations")
        sums = OrderedSums(self.network, self.optimizer.parameters, whole)
        for number, rows in sums.own:
            share = sums.begin(number, rows)
            own = {id(x): x[rows] for group in batch for x in group}
            inputs, targets = (tuple(own[id(x)] for x in group) for group in batch)
            loss, observed = self.gradient_step(inputs, targets, (), share)
            sums.add(share, [loss, *observed])
        loss, *observed = sums.finish()
        return loss, observed

    def _train_step(
        self, inputs: Arrays, targets: Arrays, weights: Arrays = (), share: Share | None = None
    ) -> Any:
        loss, observed = self._gradient_step(inputs, targets, weights, share)
        return loss, observed, self._update_step()

    def _update_step(self) -> Tensor:
        assert isinstance(self.optimizer, Optimizer)
        self.optimizer.step()
        return self.optimizer.learning_rate.copy()

    def _gradient_step(
        self, inputs: Arrays, targets: Arrays, weights: Arrays = (), among: Share | None = None
    ) -> Any:
        """Leave the gradients of a mini-batch in the Parameters; return its loss and what metrics observe.

        ``among`` says which part of a mini-batch it is, if other processes compute the rest: gradients and
        figures are then those of the whole.
        """
        totals: list[Tensor] = []
        for (x, y, w), share, share_of_loss in _parts((inputs, targets, weights), self.accumulation_steps):
            with sharing(among):
                outputs = self._outputs(x)
                loss = self._loss(outputs, y, w)
            if among is None:
                (loss if share == 1 else loss * share_of_loss).backward()
            else:
                (loss * _share_of_loss(among, w)).backward()
            figures = [_observed(loss, w), *self._observations(outputs, y, self.step_metrics)]
            totals = figures if share == 1 else _added(totals, figures, share)
        trained = {id(parameter) for parameter in self.optimizer.parameters}
        for parameter in self.network.parameters():
            if id(parameter) not in trained:  # the optimizer would not clear what backward leaves there
                parameter.grad = None
        if among is not None:
            totals = [summed_later(x.detach() * among.weight, among.communicator) for x in totals]
            sum_gradients(self.optimizer.parameters, among.communicator)
        return totals[0], totals[1:]

    def _loss(self, outputs: Arrays, targets: Arrays, weights: Arrays) -> Tensor:
        return self.loss(*outputs, *targets, **({"weight": weights[0]} if weights else {}))

    @no_grad()
    def plain_evaluation_step(self, inputs: Arrays, targets: Arrays, weights: Arrays = ()) -> Any:
        """Return the loss, what metrics observe, and outputs that other metrics need, of one mini-batch."""
        outputs, targets = self._outputs(inputs), _tensors(targets)
        weights = _tensors(weights)
        loss = _observed(self._loss(outputs, targets, weights), weights)
        averaged = [name for name, metric in self.metrics.items() if isinstance(metric, Metric)]
        kept = outputs if len(averaged) < len(self.metrics) else ()
        return loss, self._observations(outputs, targets, averaged), kept

    @no_grad()
    def plain_prediction_step(self, inputs: Arrays, names: tuple[str, ...] = ()) -> Any:
        """Return the outputs of one mini-batch, or those of the layers of some names."""
        if not names:
            return self._outputs(inputs)
        wanted = {id(layer): name for name, layer in self.network.named_layers() if name in names}
        found: dict[str, Any] = {}

        def observe(layer: Layer, arguments: tuple[Any, ...]) -> Any:
            outputs = layer.forward(*arguments)
            name = wanted.get(id(layer))
            if name in found:
                raise ValueError(f"outputs: layer {name!r} is called more than once")
            if name is not None:
                found[name] = outputs
            return outputs

        with layer_hook(observe):
            self.network(*_tensors(inputs))
        missing = [name for name in names if not isinstance(found.get(name), Tensor)]
        if missing:
            raise ValueError(
                f"outputs: the network does not call {', '.join(map(repr, missing))}, or gets no Tensor"
            )
        return tuple(found[name] for name in names)

    def layer_names(self, names: str | Sequence[str]) -> tuple[str, ...]:
        """Return the names of layers as a tuple; refuse those that are not there."""
        several = (names,) if isinstance(names, str) else tuple(names)
        known = [name for name, _ in self.network.named_layers()]
        for name in several:
            if name not in known:
                raise ValueError(f"outputs: there is no layer {name!r}; there are {', '.join(known)}")
        return several

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
                shares.append(share_of(batch[0]))
                yield converted(batch, self.dtype)

        def uploads() -> Iterator[Batch]:
            for batch in prefetch_to_device(noted(), self.device):
                share = shares.popleft()
                yield tuple(part(group, share) for group in batch)

        return uploads()

    def prepared(self, *batch: Arrays) -> Batch:
        """Return a mini-batch (its tuples of inputs, targets and weights) as the steps take it."""
        return prepared(batch, self.dtype, self.device)


def _tensors(arrays: Arrays) -> tuple[Tensor, ...]:
    """Return arrays as Tensors, without the copy that tensor() makes: nothing writes to them."""
    return tuple(x if isinstance(x, Tensor) else Tensor(x) for x in arrays)


def _parts(batch: Batch, count: int) -> Iterator[tuple[Batch, float, Any]]:
    """Yield a mini-batch in parts along its first axis, each with its share in means over the observations.

    The second share is that in the loss, which counts weights where there are some.
    """
    whole = tuple(map(_tensors, batch))
    observations, weights = len(whole[0][0]), whole[-1]
    ends = [i * observations // count for i in range(count + 1)]
    for start, end in itertools.pairwise(ends):
        if end - start == observations:
            yield whole, 1.0, 1.0
        elif start < end:
            cut = tuple(tuple(x[start:end] for x in group) for group in whole)
            share = (end - start) / observations
            yield cut, share, ratio(cut[-1][0].sum(), weights[0].sum()) if weights else share


def _with_share(batch: Batch) -> tuple[Any, ...]:
    """Return the arguments of a compiled step: plain tuples, and the share, if the mini-batch is one."""
    share, plain = share_of(batch[0]), tuple(map(tuple, batch))
    if share is None:
        return plain
    inputs, targets, *weights = plain
    return inputs, targets, weights[0] if weights else (), share


@no_grad()
def _share_of_loss(share: Share, weights: Arrays) -> Any:
    """Return what the loss of this part counts in that of the whole mini-batch."""
    if not weights:
        return share.weight
    total = weights[0].sum()
    return ratio(total, allreduce(total, share.communicator))


@no_grad()
def _observed(loss: Tensor, weights: Arrays) -> Tensor:
    """Return what is averaged of a loss over mini-batches: with weights, two means whose ratio it is."""
    if not weights:
        return loss
    weight = weights[0].mean().astype(loss.dtype)
    return stack([loss * weight, weight])


@no_grad()
def _added(totals: list[Tensor], figures: list[Tensor], share: Any) -> list[Tensor]:
    """Return the sums of figures so far with those of another part."""
    shared = [figure * share for figure in figures]
    return [total + x for total, x in zip(totals, shared, strict=True)] if totals else shared


def _name(metric: Any) -> str:
    return metric if isinstance(metric, str) else getattr(metric, "__name__", type(metric).__name__)


def _require_function(what: str, value: Any) -> None:
    """Refuse a loss or a metric that cannot be called with outputs and targets: a name, for example."""
    if isinstance(value, str):
        from minidl.foreign_names import NAMES, hint

        ours = [name for module in (losses, module_of_metrics) for name in vars(module) if name[0] != "_"]
        known = hint(value, ours, NAMES) if value not in ours else f": write dl.{value}"
        raise TypeError(f"{what} is a function of outputs and targets, got the name {value!r}{known}")
    if isinstance(value, type) or not callable(value):
        name = value.__name__ if isinstance(value, type) else type(value).__name__
        raise TypeError(f"{what} is a function of outputs and targets, got {name}")
