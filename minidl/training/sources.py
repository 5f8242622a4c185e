"""Where mini-batches come from: loaders for what users pass to fit, evaluate and predict."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from inspect import Parameter, signature
from typing import Any

import numpy

from minidl import devices
from minidl.training.arrays import Arrays, OnDisk, as_arrays, is_array, is_numbers
from minidl.training.loaders import ArrayLoader, IterableLoader, Loader
from minidl.training.options import FitArguments
from minidl.training.steps import CompiledSteps


def training_loaders(steps: CompiledSteps, arguments: FitArguments) -> tuple[Loader, Loader | None]:
    """Return what gives the mini-batches for training and, if there are some, for validation."""
    order = {
        "shuffle": arguments.shuffle,
        "drop_last": arguments.drop_last,
        "steps_per_epoch": arguments.steps_per_epoch,
    }
    x, y, validation = arguments.x, arguments.y, arguments.validation_data
    weight = arguments.sample_weight
    if arguments.class_weight is not None:
        weight = _with_class_weights(weight, arguments.class_weight, y)
    if arguments.validation_split is not None:
        (x, y, weight), validation = _split(x, y, weight, arguments.validation_split)
    loader = loader_of(steps, x, y, "training", arguments.batch_size, weight, **order)
    return loader, validation_loader(steps, validation, arguments.batch_size)


def loader_of(
    steps: CompiledSteps, x: Any, y: Any, purpose: str, batch_size: int, weight: Any = None, **order: Any
) -> Loader:
    """Return a loader for arrays, or for an iterable of mini-batches, whose ``y`` is None.

    Parameters
    ----------
    purpose : what the data are for, as errors name it
    weight : of each observation
    order : ``shuffle``, ``drop_last`` and ``steps_per_epoch``, as of Trainer.fit
    """
    if not (is_array(x) or isinstance(x, tuple) or (y is not None and is_numbers(x))):
        if y is not None:
            raise TypeError(
                f"the {purpose} inputs must be an array or a tuple of arrays, got {type(x).__name__}; "
                "an iterable of mini-batches (inputs, targets) comes without y"
            )
        if weight is not None:
            raise TypeError("with an iterable of mini-batches, weights are the third entry of each")
        return IterableLoader(x, steps_per_epoch=order.get("steps_per_epoch"))
    if y is None:
        raise TypeError(
            f"the {purpose} targets are missing: pass x and y (for an autoencoder, x twice), or an "
            "iterable of mini-batches (inputs, targets)"
        )
    if weight is not None:
        _require_weighted(steps.loss)
    inputs = as_arrays(x)
    loader = ArrayLoader(
        inputs,
        inputs if y is x else as_arrays(y),
        batch_size,
        order.get("shuffle", "never"),
        order.get("drop_last", False),
        steps.seed,
        order.get("steps_per_epoch"),
        () if weight is None else as_arrays(weight),
    )
    loader.check(f"the {purpose}")
    loader.keep_on(steps.device, steps.dtype)
    return loader


def validation_loader(steps: CompiledSteps, data: Any, batch_size: int) -> Loader | None:
    """Return a loader for what fit takes as validation_data."""
    if data is None:
        return None
    if not isinstance(data, tuple):
        return IterableLoader(data)
    if len(data) not in (2, 3):
        raise ValueError(
            "validation_data must be a pair (inputs, targets), perhaps with weights as a third entry; got "
            f"{len(data)} entries"
        )
    x, y, *weight = data
    return loader_of(steps, x, y, "validation", batch_size, *weight)


def _require_weighted(loss: Callable[..., Any]) -> None:
    """Refuse weights for a loss that takes none."""
    parameters = signature(loss).parameters
    if "weight" not in parameters and all(x.kind != Parameter.VAR_KEYWORD for x in parameters.values()):
        raise TypeError(
            f"the loss {getattr(loss, '__name__', loss)!r} takes no weights of observations: it needs an "
            "argument weight, as the losses of minidl have it"
        )


def _with_class_weights(weight: Any, class_weight: Any, y: Any) -> numpy.ndarray:
    """Return the weight of each observation, times that of its class."""
    arrays = as_arrays(y) if y is not None else ()
    labels = devices.to_numpy(arrays[0]) if len(arrays) == 1 and not isinstance(arrays[0], OnDisk) else None
    if labels is None or labels.dtype.kind not in "iu":
        raise TypeError("class_weight needs targets that are class numbers, one array of integers")
    pairs = class_weight.items() if isinstance(class_weight, Mapping) else enumerate(class_weight)
    table = {int(number): float(value) for number, value in pairs}
    classes, places = numpy.unique(labels, return_inverse=True)
    missing = [int(number) for number in classes if int(number) not in table]
    if missing:
        raise ValueError(f"class_weight has no weight for the classes {missing}")
    of_class = numpy.array([table[int(number)] for number in classes], numpy.float32)
    weights = of_class[places].reshape(labels.shape)
    if weight is None:
        return weights
    given = devices.to_numpy(as_arrays(weight)[0])
    both: numpy.ndarray = weights * given.reshape(given.shape + (1,) * (weights.ndim - given.ndim))
    return both


def _split(x: Any, y: Any, weight: Any, share: float) -> tuple[Arrays, Arrays]:
    """Return inputs, targets and weights for training and for validation: observations drawn at random.

    It is the same draw in every run, so that a resumed training validates on what it has not seen.
    """
    if y is None:
        raise TypeError("validation_split needs arrays x and y; of other data, pass validation_data")
    groups = [as_arrays(x), as_arrays(y), () if weight is None else as_arrays(weight)]
    if any(isinstance(array, (numpy.memmap, OnDisk)) for group in groups for array in group):
        raise TypeError("validation_split would read data on disk into memory: pass validation_data")
    count = len(groups[0][0])
    held = round(share * count)
    if not 0 < held < count:
        raise ValueError(f"validation_split={share} of {count} observations leaves {held} for validation")
    order = numpy.random.default_rng(0).permutation(count)
    parts: list[Arrays] = []
    for index in (numpy.sort(order[held:]), numpy.sort(order[:held])):
        cut: dict[int, Any] = {}
        for array in (array for group in groups for array in group):
            if len(array) != count:
                raise ValueError(f"arrays have {count} and {len(array)} observations")
            cut.setdefault(id(array), _taken(array, index))
        inputs, targets, weights = (tuple(cut[id(array)] for array in group) for group in groups)
        same = y is x
        parts.append((inputs, inputs if same else targets, *(weights or ((None,) if not parts else ()))))
    return parts[0], parts[1]


def _taken(array: Any, index: numpy.ndarray) -> Any:
    with devices.current(array):
        return array[devices.to_device(index, devices.device_of(array))]
