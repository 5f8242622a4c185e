"""Trainer: fits a network to data, evaluates it, and predicts with it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from math import inf
from os import PathLike
from typing import Any

import numpy

from minidl import devices
from minidl.data import prefetch_to_device
from minidl.layers import Layer
from minidl.metrics import Metric
from minidl.mode import no_grad
from minidl.optimizers import LBFGS, SGD, Adam, Optimizer, RMSProp
from minidl.program.compile import compile as compile_function
from minidl.tensor import Tensor
from minidl.tracking import Tracked
from minidl.training.fit import FLUSH_SECONDS, Fit, Options
from minidl.training.history import History
from minidl.training.loaders import (
    Arrays,
    ArraySource,
    Batch,
    IterableSource,
    Source,
    as_arrays,
    converted,
    is_array,
    prepared,
)
from minidl.training.metric_averages import MetricAverages
from minidl.training.progress import watched

#: The solvers of MATLAB's trainingOptions, with its defaults.
SOLVERS: dict[str, Callable[[list[Any]], Optimizer | LBFGS]] = {
    "adam": lambda parameters: Adam(parameters, learning_rate=0.001, l2=1e-4),
    "rmsprop": lambda parameters: RMSProp(parameters, learning_rate=0.001, l2=1e-4),
    "sgdm": lambda parameters: SGD(parameters, learning_rate=0.01, momentum=0.9, l2=1e-4),
    "lbfgs": lambda parameters: LBFGS(parameters, l2=1e-4),
}


class Trainer(Tracked):
    """Trains a network, evaluates it, and predicts with it, in compiled steps.

    Parameters
    ----------
    network : a Layer; moved to the device
    loss : function of the network's outputs and the targets, in this order, that returns a 0-d Tensor
    optimizer : an Optimizer or LBFGS over the network's Parameters; or ``"adam"``, ``"rmsprop"``,
        ``"sgdm"``, ``"lbfgs"``: these with the defaults of MATLAB's trainingOptions (l2=1e-4;
        learning rate 0.001, for sgdm 0.01 and momentum 0.9)
    metrics : functions like the loss. A `Metric` is averaged over mini-batches as it should be;
        another function is applied to each mini-batch while training, and to all predictions at
        once for validation.
    device : ``"auto"`` is a GPU if there is one, ``"gpu:1"`` the second one
    compile : whether steps are compiled; a dict gives options of minidl.compile, for example
        ``{"kernels": "c"}``
    seed : decides the order of the observations; with None, each Trainer draws another

    Examples
    --------
    >>> import numpy, minidl as dl
    >>> x = numpy.linspace(-1, 1, 64, dtype="float32").reshape(-1, 1)
    >>> network = dl.Network([dl.Dense(1, 8, seed=0), dl.Tanh(), dl.Dense(8, 1, seed=1)])
    >>> trainer = dl.Trainer(network, dl.mean_squared_error, metrics=[dl.rmse], device="cpu", seed=0)
    >>> history = trainer.fit(x, x**2, epochs=3, batch_size=16, verbose=False)
    >>> len(history), trainer.predict(x).shape
    (12, (64, 1))
    """

    def __init__(
        self,
        network: Layer,
        loss: Callable[..., Tensor],
        optimizer: Optimizer | LBFGS | str = "adam",
        metrics: Sequence[Callable[..., Tensor]] = (),
        *,
        device: str = "auto",
        compile: bool | dict[str, Any] = True,
        seed: int | None = None,
    ):
        if not isinstance(network, Layer):
            raise TypeError(f"Trainer trains a Layer, got {type(network).__name__}")
        self.device = devices.resolve(device)
        self.why_cpu = devices.gpu_problem() if device == "auto" and self.device == "cpu" else None
        self.network = network.to(self.device)
        self.loss = loss
        self.optimizer = self._optimizer(optimizer)
        self.metrics = {_name(metric): metric for metric in metrics}
        if len(self.metrics) < len(metrics) or "loss" in self.metrics:
            raise ValueError(
                f"metrics need different names, none of them 'loss'; got {[*map(_name, metrics)]}"
            )
        self.seed = int(numpy.random.SeedSequence().generate_state(1)[0]) if seed is None else seed
        options = compile if isinstance(compile, dict) else {}
        compiled = compile_function(**options) if compile or isinstance(compile, dict) else lambda f: f
        self.train_step = compiled(self._train_step)
        self.gradient_step = compiled(self._gradient_step)
        self.evaluation_step = compiled(self._evaluation_step)
        self.prediction_step = compiled(self._prediction_step)

    def _optimizer(self, optimizer: Optimizer | LBFGS | str) -> Optimizer | LBFGS:
        if isinstance(optimizer, str):
            if optimizer not in SOLVERS:
                raise ValueError(f"unknown optimizer {optimizer!r}: use one of {', '.join(SOLVERS)}")
            return SOLVERS[optimizer](self.network.parameters())
        if not isinstance(optimizer, (Optimizer, LBFGS)):
            raise TypeError(f"Trainer takes an Optimizer or a name, got {type(optimizer).__name__}")
        trained = {id(parameter) for parameter in optimizer.parameters}
        if not any(id(parameter) in trained for parameter in self.network.parameters()):
            raise ValueError("the optimizer trains none of the network's Parameters")
        return optimizer

    # --- the functions that are compiled ----------------------------------------------------------

    def _outputs(self, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        outputs = self.network(*_tensors(inputs))
        return tuple(outputs) if isinstance(outputs, (tuple, list)) else (outputs,)

    def _figures(self, outputs: tuple[Any, ...], targets: tuple[Any, ...], names: list[str]) -> list[Tensor]:
        """Return what each metric observes in a batch."""
        metrics = [self.metrics[name] for name in names]
        with no_grad():
            return [
                (metric.observe if isinstance(metric, Metric) else metric)(*outputs, *targets)
                for metric in metrics
            ]

    def _train_step(self, inputs: tuple[Any, ...], targets: tuple[Any, ...]) -> Any:
        assert isinstance(self.optimizer, Optimizer)
        loss, figures = self._gradient_step(inputs, targets)
        self.optimizer.step()
        return loss, figures, self.optimizer.learning_rate.copy()

    def _gradient_step(self, inputs: tuple[Any, ...], targets: tuple[Any, ...]) -> Any:
        outputs, targets = self._outputs(inputs), _tensors(targets)
        loss = self.loss(*outputs, *targets)
        loss.backward()
        trained = {id(parameter) for parameter in self.optimizer.parameters}
        for parameter in self.network.parameters():
            if id(parameter) not in trained:  # nobody would clear what backward leaves there
                parameter.grad = None
        return loss, self._figures(outputs, targets, self.step_metrics)

    @no_grad()
    def _evaluation_step(self, inputs: tuple[Any, ...], targets: tuple[Any, ...]) -> Any:
        outputs, targets = self._outputs(inputs), _tensors(targets)
        loss = self.loss(*outputs, *targets)
        averaged = [name for name, metric in self.metrics.items() if isinstance(metric, Metric)]
        kept = outputs if len(averaged) < len(self.metrics) else ()
        return loss, self._figures(outputs, targets, averaged), kept

    @no_grad()
    def _prediction_step(self, inputs: tuple[Any, ...]) -> Any:
        return self._outputs(inputs)

    @property
    def step_metrics(self) -> list[str]:
        """The names of the metrics that are computed at every step."""
        return [name for name, metric in self.metrics.items() if getattr(metric, "in_steps", True)]

    @property
    def dtype(self) -> numpy.dtype:
        """The dtype that the network computes in."""
        return self.optimizer.parameters[0].dtype

    # --- training ---------------------------------------------------------------------------------

    def fit(
        self,
        x: Any,
        y: Any = None,
        *,
        epochs: int = 30,
        batch_size: int = 128,
        shuffle: str = "every-epoch",
        drop_last: bool = True,
        validation_data: Any = None,
        validation_frequency: int | str = 50,
        validation_patience: float = inf,
        objective: str = "loss",
        output_network: str = "auto",
        normalization: str = "unfitted",
        checkpoint_folder: str | PathLike[str] | None = None,
        checkpoint_frequency: int | str = "epoch",
        keep_checkpoints: int = 2,
        resume: bool = False,
        callbacks: Iterable[Callable[[Fit], Any]] = (),
        plot: bool | str | PathLike[str] = False,
        verbose: bool = True,
        verbose_frequency: int = 50,
    ) -> History:
        """Train the network; return what happened.

        Frequencies count steps; ``"epoch"`` means at the end of each epoch. Ctrl-C ends the training
        after the present step, with everything written; a second one interrupts at once.

        Parameters
        ----------
        x, y : inputs and targets, arrays with one observation per entry of the first axis, or tuples of
            them for several inputs and targets; memory-mapped arrays are read ahead. Or ``x`` alone: an
            iterable of mini-batches (inputs, targets), or a function that returns an iterator over
            them, for data larger than memory. To a GPU, arrays in memory are moved once if they take at
            most half of what is free there; other data mini-batch by mini-batch, while it computes.
        epochs : how often to go through the data; for LBFGS its max_iterations count instead
        batch_size : observations in a mini-batch; LBFGS takes all at once
        shuffle : ``"every-epoch"``, ``"once"`` or ``"never"``
        drop_last : leave out the last mini-batch if it is not full, unless it is the only one
        validation_data : a pair (inputs, targets) as x and y, or an iterable of mini-batches
        validation_frequency : when to validate, besides after the last step
        validation_patience : stop after so many validations in a row that were not better than the best
        objective : ``"loss"`` or the name of a metric: what the best validation is judged by
        output_network : which weights the network has afterwards: ``"best"`` (validation), ``"last"``,
            or ``"auto"``: best if there is validation data
        normalization : which `Normalize` layers are fitted to the data first: ``"unfitted"`` or ``"all"``
        checkpoint_folder : where to write checkpoints, and the best weights as best.safetensors
        checkpoint_frequency : when to write them
        keep_checkpoints : how many of them to keep
        resume : go on from the newest checkpoint in the folder, if there is one. The end is that of a
            training without a break, bit for bit.
        callbacks : functions that are called with the running `Fit` before the first step, after each
            step and at the end; a true result stops the training
        plot : True shows the training as it goes, in a notebook or a window; a path writes the picture
            there at the end
        verbose : show progress: a bar on a terminal and in a notebook, else a line every
            ``verbose_frequency`` steps

        Raises
        ------
        FloatingPointError
            The loss became infinite or NaN. The network has its last good weights (or the best ones);
            the message names the step, the mini-batch and the first layer that was not finite.
        CheckpointError
            The checkpoint to go on from is damaged, or belongs to another training.
        """
        settings = {name: value for name, value in locals().items() if name in Options.__annotations__}
        options = Options(**settings)
        self.network.to(self.device)  # it may have been moved meanwhile
        source = self._source(x, y, options, "training")
        validation = self._validation_source(validation_data, options)
        return Fit(self, source, validation, options, list(callbacks)).run()

    def evaluate(
        self, x: Any, y: Any = None, batch_size: int = 128, verbose: bool = False
    ) -> dict[str, float]:
        """Return the loss and the metrics over a data set, in evaluation mode.

        Arguments are those of fit(). The loss is the mean of the mini-batches' losses, weighted by
        their sizes.
        """
        self.network.to(self.device)
        options = Options(batch_size=batch_size, shuffle="never", drop_last=False)
        return self.figures(self._source(x, y, options, "evaluation"), verbose)

    def figures(self, source: Source, verbose: bool = False) -> dict[str, float]:
        """Return the loss and the metrics over the mini-batches of a source."""
        averaged = {name: metric for name, metric in self.metrics.items() if isinstance(metric, Metric)}
        totals = MetricAverages(averaged)
        kept: list[tuple[Any, ...]] = []
        pending: list[tuple[int, list[Tensor]]] = []
        flushed = time.monotonic()
        with self.network.evaluating():
            batches = self.uploaded(source.epoch(1))
            for inputs, targets in watched(batches, source.steps, "evaluating", verbose):
                loss, observed, outputs = self.evaluation_step(inputs, targets)
                pending.append((len(targets[0]), [loss, *observed]))
                if outputs:
                    kept.append((*(x.data for x in outputs), *targets))
                if time.monotonic() - flushed > FLUSH_SECONDS:
                    totals.add_all(pending)
                    flushed = time.monotonic()
        totals.add_all(pending)
        figures = totals.figures()
        if kept:
            xp = devices.array_module(kept[0][0])
            with devices.current(kept[0][0]):
                everything = [Tensor(xp.concatenate(parts)) for parts in zip(*kept, strict=True)]
            with no_grad():
                whole = {n: m(*everything).item() for n, m in self.metrics.items() if n not in averaged}
            figures = {name: (figures | whole)[name] for name in ("loss", *self.metrics)}
        return figures

    def predict(self, x: Any, batch_size: int = 128, verbose: bool = False) -> Any:
        """Return the network's outputs for all observations, in evaluation mode, as NumPy arrays.

        Parameters
        ----------
        x : an array, a tuple of arrays for several inputs, or an iterable of mini-batches of these
        batch_size : how many observations to compute at once; the last mini-batch may have fewer
        verbose : show a progress bar

        Returns
        -------
        An array (observations, ...), or a tuple of them if the network has several outputs.
        """
        if is_array(x) or isinstance(x, Tensor) or (isinstance(x, tuple) and x and is_array(as_arrays(x)[0])):
            options = Options(batch_size=batch_size, shuffle="never", drop_last=False)
            source = self._source(x, (), options, "prediction")
        else:
            source = IterableSource(x, with_targets=False)
        self.network.to(self.device)
        parts: list[list[numpy.ndarray]] = []
        with self.network.evaluating():
            batches = self.uploaded(source.epoch(1))
            for inputs, _ in watched(batches, source.steps, "predicting", verbose):
                outputs = self.prediction_step(inputs)
                parts.append([devices.to_numpy(y.data) for y in outputs])
        joined = tuple(numpy.concatenate(column) for column in zip(*parts, strict=True))
        return joined if len(joined) > 1 else joined[0]

    # --- data -------------------------------------------------------------------------------------

    def _source(self, x: Any, y: Any, options: Options, what: str) -> Source:
        if not (is_array(x) or isinstance(x, (Tensor, tuple))):
            if y is not None:
                raise TypeError(
                    f"the {what} inputs must be an array or a tuple of arrays, got {type(x).__name__}; "
                    "an iterable of mini-batches (inputs, targets) comes without y"
                )
            return IterableSource(x)
        if y is None:
            raise TypeError(
                f"the {what} targets are missing: pass x and y (for an autoencoder, x twice), or an "
                "iterable of mini-batches (inputs, targets)"
            )
        source = ArraySource(
            as_arrays(x), as_arrays(y), options.batch_size, options.shuffle, options.drop_last, self.seed
        )
        source.check(f"the {what}")
        source.keep_on(self.device, self.dtype)
        return source

    def _validation_source(self, data: Any, options: Options) -> Source | None:
        if data is None:
            return None
        if not isinstance(data, tuple):
            return IterableSource(data)
        if len(data) != 2:
            raise ValueError(f"validation_data must be a pair (inputs, targets), got {len(data)} entries")
        plain = Options(batch_size=options.batch_size, shuffle="never", drop_last=False)
        return self._source(*data, plain, "validation")

    def uploaded(self, batches: Iterable[Batch]) -> Iterator[Batch]:
        """Yield mini-batches as the network takes them, uploaded while it computes with those before."""
        if self.device == "cpu":
            return (self.prepared(*batch) for batch in batches)
        return prefetch_to_device((converted(batch, self.dtype) for batch in batches), self.device)

    def prepared(self, inputs: Arrays, targets: Arrays = ()) -> Batch:
        """Return a mini-batch as the network takes it."""
        return prepared((inputs, targets), self.dtype, self.device)


def _tensors(arrays: tuple[Any, ...]) -> tuple[Tensor, ...]:
    """Return arrays as Tensors, without the copy that tensor() makes: nothing writes to them."""
    return tuple(x if isinstance(x, Tensor) else Tensor(x) for x in arrays)


def _name(metric: Any) -> str:
    return getattr(metric, "__name__", type(metric).__name__)
