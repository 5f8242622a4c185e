"""Names of other frameworks, and what they are called here: for error messages that help.

``dl.Linear`` is answered with "Dense", and ``lr=0.1`` with "learning_rate". A misspelt name is answered with
the name most like it. This module is loaded when a name was not found, never before.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from difflib import get_close_matches

#: Layers, functions and classes of PyTorch, Keras, JAX, NumPy and MATLAB, and ours.
NAMES: dict[str, str] = {
    # layers
    "Linear": "Dense",
    "FullyConnected": "Dense",
    "fullyConnectedLayer": "Dense",
    "Sequential": "Network",
    "dlnetwork": "Network",
    "Module": "Layer",
    "Model": "Layer",
    "functionLayer": "Layer",
    "reluLayer": "ReLU",
    "sigmoidLayer": "Sigmoid",
    "tanhLayer": "Tanh",
    "softmaxLayer": "Softmax",
    "flattenLayer": "Flatten",
    "dropoutLayer": "Dropout",
    "imageInputLayer": "Normalize",
    "featureInputLayer": "Normalize",
    "Normalization": "Normalize",
    # losses
    "BCELoss": "binary_cross_entropy",
    "BCEWithLogitsLoss": "binary_cross_entropy_with_logits",
    "BinaryCrossentropy": "binary_cross_entropy",
    "CrossEntropyLoss": "softmax_cross_entropy",
    "cross_entropy": "softmax_cross_entropy",
    "crossentropy": "softmax_cross_entropy",
    "CategoricalCrossentropy": "softmax_cross_entropy",
    "SparseCategoricalCrossentropy": "softmax_cross_entropy",
    "MSELoss": "mean_squared_error",
    "mse_loss": "mean_squared_error",
    "mse": "mean_squared_error",
    "MeanSquaredError": "mean_squared_error",
    "l2loss": "mean_squared_error",
    "L1Loss": "mean_absolute_error",
    "l1_loss": "mean_absolute_error",
    "l1loss": "mean_absolute_error",
    "MeanAbsoluteError": "mean_absolute_error",
    "HuberLoss": "huber",
    "SmoothL1Loss": "huber",
    # optimizers and training
    "sgdm": "SGD",
    "RMSprop": "RMSProp",
    "lr_scheduler": "schedules",
    "trainnet": "Trainer",
    "trainNetwork": "Trainer",
    "trainingOptions": "Trainer",
    "checkLayer": "check_layer",
    "gradcheck": "check_gradients",
    "jit": "compile",
    "function": "compile",
    "script": "compile",
    "DataLoader": "data.batches",
    "digits": "data.digits",
    "digitTrain4DArrayData": "data.digits",
    # tensors
    "Variable": "Parameter",
    "dlarray": "Tensor",
    "as_tensor": "tensor",
    "asarray": "tensor",
    "array": "tensor",
    "from_numpy": "tensor",
    "constant": "tensor",
    "dlgradient": "grad",
    "GradientTape": "grad",
    "stop_gradient": "Tensor.detach",
    "abs": "absolute",
    "amax": "max",
    "amin": "min",
    "clamp": "clip",
    "cat": "concatenate",
    "concat": "concatenate",
    "permute": "transpose",
    "unsqueeze": "expand_dims",
    "reduce_mean": "mean",
    "reduce_sum": "sum",
    "mm": "matmul",
    "bmm": "matmul",
    "dot": "matmul",
    "view": "reshape",
    "manual_seed": "Generator",
    "default_rng": "Generator",
    "PRNGKey": "Generator",
    "rng": "Generator",
}

#: Options of layers, optimizers and trainings elsewhere, and ours.
OPTIONS: dict[str, str] = {
    "lr": "learning_rate",
    "InitialLearnRate": "learning_rate",
    "eps": "epsilon",
    "Epsilon": "epsilon",
    "weight_decay": "l2",
    "L2Regularization": "l2",
    "Momentum": "momentum",
    "beta_1": "beta1",
    "beta_2": "beta2",
    "GradientDecayFactor": "beta1",
    "SquaredGradientDecayFactor": "beta2",
    "clipnorm": "clip_norm",
    "global_clipnorm": "clip_global_norm",
    "clipvalue": "clip_value",
    "MaxEpochs": "epochs",
    "max_epochs": "epochs",
    "num_epochs": "epochs",
    "MiniBatchSize": "batch_size",
    "Shuffle": "shuffle",
    "ValidationData": "validation_data",
    "ValidationFrequency": "validation_frequency",
    "ValidationPatience": "validation_patience",
    "patience": "validation_patience",
    "OutputNetwork": "output_network",
    "OutputFcn": "callbacks",
    "Plots": "plot",
    "Verbose": "verbose",
    "VerboseFrequency": "verbose_frequency",
    "CheckpointPath": "checkpoint_folder",
    "CheckpointFrequency": "checkpoint_frequency",
    "ExecutionEnvironment": "device",
    "requires_gradient": "requires_grad",
    "dim": "axis",
    "keepdim": "keepdims",
    "random_state": "seed",
    "use_bias": "bias",
    "units": "out_features",
    "OutputSize": "out_features",
}


def hint(name: str, known: Iterable[str], table: Mapping[str, str]) -> str:
    """Return what to add to an error about an unknown name: ``": did you mean 'Dense'?"``, or nothing.

    Parameters
    ----------
    name : the name that was not found
    known : the names that exist
    table : names of other frameworks and ours, `NAMES` or `OPTIONS`

    >>> hint("lr", ["learning_rate", "momentum"], OPTIONS)
    ": it is called 'learning_rate' here"
    >>> hint("momentun", ["learning_rate", "momentum"], OPTIONS)
    ": did you mean 'momentum'?"
    >>> hint("zzz", ["learning_rate", "momentum"], OPTIONS)
    ''
    """
    known = list(known)
    ours = table.get(name)
    if ours is not None and ours.partition(".")[0] in known:
        return f": it is called {ours!r} here"
    lower = {other.lower().replace("_", ""): other for other in known}
    plain = name.lower().replace("_", "")
    if plain in lower:
        return f": did you mean {lower[plain]!r}?"
    near = get_close_matches(plain, lower, n=1, cutoff=0.75)
    return f": did you mean {lower[near[0]]!r}?" if near else ""
