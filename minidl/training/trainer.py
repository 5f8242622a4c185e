"""Trainer: fits a network to data, evaluates it, and predicts with it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy

from minidl import devices
from minidl.distributed.communicators import Communicator
from minidl.layers import Layer
from minidl.optimizers.base import BaseOptimizer
from minidl.tensor import Tensor
from minidl.training.arrays import is_array, is_numbers
from minidl.training.bars import with_bar
from minidl.training.evaluation import evaluate
from minidl.training.exclusive import training, using
from minidl.training.fit import Fit
from minidl.training.history import History
from minidl.training.loaders import ArrayLoader, IterableLoader, Loader
from minidl.training.options import FitArguments, takes_fit_arguments
from minidl.training.ranks import quiet, share_out
from minidl.training.sources import loader_of, training_loaders
from minidl.training.steps import CompiledSteps
from minidl.training.trials import OverfitTest, RangeTest, overfit_test, range_test


class Trainer(CompiledSteps):
    """Trains a network, evaluates it, and predicts with it, in compiled steps.

    Parameters
    ----------
    network : a Layer; moved to the device
    loss : function of the network's outputs and the targets, in this order, that returns a 0-d Tensor
    optimizer : an Optimizer or a full-batch optimizer (LBFGS) of the network's Parameters; or one of
        ``"adam"``, ``"rmsprop"``, ``"sgdm"``, ``"lbfgs"``, with the defaults of MATLAB's
        trainingOptions (l2=1e-4; learning rate 0.001, for sgdm 0.01 and momentum 0.9)
    metrics : functions like the loss. A `Metric` is averaged correctly over mini-batches;
        another function is applied to each mini-batch while training, and to all predictions at
        once for validation.
    device : ``"auto"`` is a GPU if there is one, ``"gpu:1"`` the second one
    compile : whether steps are compiled; a dict gives options of minidl.compile, for example
        ``{"kernels": "numpy"}``
    seed : decides the order of the observations; with None, each Trainer draws a new one
    distributed : train on all processes that ``mpiexec`` started, each of which computes a part of every
        mini-batch; ``batch_size`` is that of all together. Every process makes the same calls. True, or a
        `Communicator`; see docs/distributed.md
    reproducible : compute every mini-batch in 12 micro-batches, and add up in their order, so that any
        number of processes gives the same bits. `BatchNorm` then normalises micro-batches.

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
        optimizer: BaseOptimizer | str = "adam",
        metrics: Sequence[Callable[..., Tensor]] = (),
        *,
        device: str = "auto",
        compile: bool | dict[str, Any] = True,
        seed: int | None = None,
        distributed: bool | Communicator = False,
        reproducible: bool = False,
    ):
        super().__init__(
            network,
            loss,
            optimizer,
            metrics,
            device=device,
            compile=compile,
            seed=seed,
            distributed=distributed,
            reproducible=reproducible,
        )

    @takes_fit_arguments(FitArguments)
    def fit(self, arguments: FitArguments) -> History:
        """Train the network; return what happened.

        Frequencies count steps; ``"epoch"`` means at the end of each epoch. Ctrl-C ends the training
        after the present step, with everything written; a second one interrupts at once.

        Parameters
        ----------
        x, y : inputs and targets, arrays with one observation per entry of the first axis, or tuples of
            them for several inputs and targets; also nested lists, tables (DataFrames) and arrays of other
            libraries. Memory-mapped arrays and datasets of h5py are read ahead. Or ``x`` alone: an
            iterable of mini-batches (inputs, targets), or a function that returns an iterator over
            them, for data larger than memory. To a GPU, arrays in memory are moved once if they take at
            most half of the free memory there; other data are moved one mini-batch at a time, while
            the GPU computes with the one before.
        epochs : how many times to go through the data; for LBFGS its max_iterations count instead
        batch_size : observations in a mini-batch; LBFGS takes all at once
        shuffle : ``"every-epoch"``, ``"once"`` or ``"never"``
        drop_last : leave out the last mini-batch if it is not full, unless it is the only one
        steps_per_epoch : end an epoch after this number of mini-batches; for endless iterables
        accumulation_steps : compute each mini-batch in this number of parts, and add up their gradients:
            the same step in less memory. The loss must be a mean over observations; functions as metrics
            give the mean of their parts
        sample_weight : how much each observation counts in the loss, an array of its first axis; a
            mini-batch of an iterable may have it as a third entry. The loss must take ``weight``
        class_weight : how much the observations of each class count, ``{class: weight}`` or a sequence, for
            targets that are class numbers; with sample_weight, the product
        validation_data : a pair (inputs, targets) as x and y, with weights as a third entry if they count,
            or an iterable of mini-batches
        validation_split : the share of the observations to validate on and not to train on, in place of
            validation_data; drawn at random, but alike in every run
        validation_frequency : when to validate, besides after the last step
        validation_patience : stop after this number of validations in a row without a new best
        objective : ``"loss"`` or the name of a metric: what the best validation is judged by
        output_network : which weights the network has afterwards: ``"best"`` (validation), ``"last"``,
            or ``"auto"``: best if there is validation data
        normalization : which `Normalize` layers are fitted to the data first: ``"unfitted"`` or ``"all"``
        checkpoint_folder : where to write checkpoints, and the best weights as best.safetensors
        checkpoint_frequency : when to write them
        keep_checkpoints : how many of them to keep
        resume : resume from the newest checkpoint in the folder, if there is one. The result is that of
            an uninterrupted training, bit for bit.
        callbacks : functions that are called with the running `Fit` before the first step, after each
            step and at the end; a true result stops the training
        plot : True shows a live plot, in a notebook or a window; with a path, the plot is written there
            at the end
        verbose, verbose_frequency : show progress: a bar on a terminal and in a notebook, else a line
            after every ``verbose_frequency`` steps

        Raises
        ------
        FloatingPointError
            The loss became infinite or NaN. The network has its last good weights (or the best ones);
            the message names the step, the mini-batch and the first layer that was not finite.
        CheckpointError
            The newest checkpoint is damaged, or belongs to another training.
        """
        self.network.to(self.device)  # it may have been moved meanwhile
        self.accumulation_steps = arguments.accumulation_steps
        loader, validation = training_loaders(self, arguments)
        if self.ranks.size > 1 or self.is_reproducible:
            share_out(self, loader, arguments)
        if not self.ranks.is_first:
            arguments = replace(arguments, verbose=False, plot=False)
        with training(self.network), quiet(self.ranks):
            return Fit(self, loader, validation, arguments, arguments.callbacks).run()

    def evaluate(
        self,
        x: Any,
        y: Any = None,
        batch_size: int = 128,
        verbose: bool = False,
        sample_weight: Any = None,
    ) -> dict[str, float]:
        """Return the loss and the metrics over a data set, in evaluation mode.

        Arguments are those of fit(). The loss is the mean of the mini-batches' losses, weighted by
        their sizes.
        """
        self.network.to(self.device)
        loader = loader_of(self, x, y, "evaluation", batch_size, sample_weight)
        return evaluate(self, loader, verbose, batch_size)

    def predict(
        self,
        x: Any,
        batch_size: int = 128,
        verbose: bool = False,
        outputs: str | Sequence[str] = (),
    ) -> Any:
        """Return the network's outputs for all observations, in evaluation mode, as NumPy arrays.

        Parameters
        ----------
        x : an array, a tuple of arrays for several inputs, or an iterable of mini-batches of these;
            arrays are taken from any library, as by fit()
        batch_size : how many observations to compute at once; the last mini-batch may have fewer
        verbose : show a progress bar
        outputs : names of layers (``named_layers()`` and ``summary()`` list them) whose outputs to return
            in place of the network's: one name, or several

        Returns
        -------
        An array (observations, ...), or a tuple of them if there are several outputs.
        """
        if is_array(x) or is_numbers(x) or (isinstance(x, tuple) and x):
            loader: Loader = loader_of(self, x, (), "prediction", batch_size)
        else:
            loader = IterableLoader(x, with_targets=False)
        self.network.to(self.device)
        names = self.layer_names(outputs)
        parts: list[list[numpy.ndarray]] = []
        is_array_like = isinstance(loader, ArrayLoader)
        with using(self.network, "predict"), self.network.evaluating():
            batches = self.uploaded(loader.epoch(1))
            for inputs, *_ in with_bar(batches, loader.steps, "predicting", verbose):
                is_rare = is_array_like and len(inputs[0]) != batch_size  # a compiled step would not pay
                step = self.plain_prediction_step if is_rare else self.prediction_step
                parts.append([devices.to_numpy(y.data) for y in step(inputs, names)])
        joined = tuple(numpy.concatenate(column) for column in zip(*parts, strict=True))
        return joined if len(joined) > 1 else joined[0]

    def find_learning_rate(
        self,
        x: Any,
        y: Any = None,
        *,
        low: float = 1e-6,
        high: float = 10.0,
        steps: int = 100,
        batch_size: int = 128,
    ) -> RangeTest:
        """Train with learning rates that grow from step to step, then bring everything back to what it was.

        Where the loss falls fastest, and well before it rises, is a good place for a learning rate (Smith,
        "Cyclical learning rates for training neural networks", 2017). The result has the ``rates`` and
        ``losses``, a ``suggestion``, and ``plot()``.

        Parameters
        ----------
        x, y, batch_size : as for fit()
        low, high : the first and the last learning rate; it ends earlier if the loss explodes
        steps : how many learning rates to try, one for each mini-batch
        """
        self.network.to(self.device)
        order = {"shuffle": "every-epoch", "drop_last": True}
        loader = loader_of(self, x, y, "training", batch_size, **order)
        return range_test(self, loader, float(low), float(high), int(steps))

    def check_overfit(
        self,
        x: Any,
        y: Any = None,
        *,
        batch_size: int = 16,
        steps: int = 200,
        share: float = 0.1,
        floor: float = 0.0,
    ) -> OverfitTest:
        """Train on the first mini-batch alone, then undo that; say whether the network can learn it.

        A network that cannot learn a few observations by heart has a mistake. The result is true if the
        loss fell to ``share`` of what it was above ``floor``, and all Parameters have changed; it has the
        ``losses`` and the ``unchanged`` Parameters. Print it.

        Parameters
        ----------
        x, y : as for fit()
        batch_size : how many observations to learn; fewer are easier
        steps : how many steps to take
        floor : the smallest loss there can be, where that is not 0
        """
        self.network.to(self.device)
        loader = loader_of(self, x, y, "training", batch_size)
        return overfit_test(self, loader, int(steps), float(share), float(floor))
