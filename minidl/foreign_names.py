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
    "Conv1d": "Conv1D",
    "convolution1dLayer": "Conv1D",
    "Conv2d": "Conv2D",
    "convolution2dLayer": "Conv2D",
    "groupedConvolution2dLayer": "DepthwiseConv2D",
    "ConvTranspose2d": "ConvTranspose2D",
    "Conv2DTranspose": "ConvTranspose2D",
    "transposedConv2dLayer": "ConvTranspose2D",
    "MaxPool2d": "MaxPool2D",
    "MaxPooling2D": "MaxPool2D",
    "maxPooling2dLayer": "MaxPool2D",
    "AvgPool2d": "AveragePool2D",
    "AveragePooling2D": "AveragePool2D",
    "averagePooling2dLayer": "AveragePool2D",
    "AdaptiveAvgPool2d": "GlobalAveragePool2D",
    "GlobalAveragePooling2D": "GlobalAveragePool2D",
    "globalAveragePooling2dLayer": "GlobalAveragePool2D",
    "Upsample": "UpSample2D",
    "UpSampling2D": "UpSample2D",
    "resize2dLayer": "UpSample2D",
    "interpolate": "upsample2d",
    "BatchNorm1d": "BatchNorm",
    "BatchNorm2d": "BatchNorm",
    "BatchNormalization": "BatchNorm",
    "batchNormalizationLayer": "BatchNorm",
    "LayerNormalization": "LayerNorm",
    "layerNormalizationLayer": "LayerNorm",
    "GroupNormalization": "GroupNorm",
    "groupNormalizationLayer": "GroupNorm",
    "RMSNormalization": "RMSNorm",
    "SimpleRNN": "RNN",
    "lstmLayer": "LSTM",
    "gruLayer": "GRU",
    "MultiheadAttention": "MultiHeadAttention",
    "selfAttentionLayer": "MultiHeadAttention",
    "scaled_dot_product_attention": "attention",
    "wordEmbeddingLayer": "Embedding",
    "Sequential": "Network",
    "dlnetwork": "Network",
    "Module": "Layer",
    "Model": "Layer",
    "functionLayer": "Layer",
    "reluLayer": "ReLU",
    "leakyReluLayer": "LeakyReLU",
    "preluLayer": "PReLU",
    "eluLayer": "ELU",
    "geluLayer": "GELU",
    "swishLayer": "SiLU",
    "swish": "silu",
    "softplusLayer": "Softplus",
    "sigmoidLayer": "Sigmoid",
    "tanhLayer": "Tanh",
    "softmaxLayer": "Softmax",
    "flattenLayer": "Flatten",
    "Unflatten": "Reshape",
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
    "Huber": "huber",
    "SmoothL1Loss": "huber",
    # optimizers and training
    "sgdm": "SGD",
    "NAdam": "Nadam",
    "AMSGrad": "Adam",
    "AdaGrad": "Adagrad",
    "ExponentialMovingAverage": "Optimizer.averaged",
    "AveragedModel": "Optimizer.averaged",
    "CG": "ConjugateGradient",
    "RMSprop": "RMSProp",
    "rmsprop": "RMSProp",
    "lr_scheduler": "schedules",
    "LearningRateSchedule": "schedules",
    "LearnRateSchedule": "schedules",
    "fit": "Trainer",
    "trainnet": "Trainer",
    "trainNetwork": "Trainer",
    "trainingOptions": "Trainer",
    "checkLayer": "check_layer",
    "gradcheck": "check_gradients",
    "jit": "compile",
    "function": "compile",
    "script": "compile",
    "DataLoader": "data.batches",
    "minibatchqueue": "data.batches",
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
    "jacrev": "jacobian",
    "dljacobian": "jacobian",
    "hvp": "hessian_vector_product",
    "stop_gradient": "Tensor.detach",
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
    "view": "reshape",
    "gather": "take_along_axis",
    "index_select": "take",
    "masked_fill": "where",
    "rand": "random.uniform",
    "randn": "random.normal",
    "randint": "random.integers",
    "randperm": "random.permutation",
    "manual_seed": "random.seed",
    "set_random_seed": "random.seed",
    "default_rng": "Generator",
    "PRNGKey": "Generator",
    "SeedGenerator": "Generator",
    "rng": "random.seed",
}

#: Options of layers, optimizers and trainings elsewhere, and ours.
OPTIONS: dict[str, str] = {
    "lr": "learning_rate",
    "InitialLearnRate": "learning_rate",
    "params": "parameters",
    "eps": "epsilon",
    "Epsilon": "epsilon",
    "weight_decay": "l2",
    "L2Regularization": "l2",
    "Momentum": "momentum",
    "beta_1": "beta1",
    "beta_2": "beta2",
    "GradientDecayFactor": "beta1",
    "SquaredGradientDecayFactor": "beta2",
    "ema_momentum": "average_decay",
    "use_ema": "average_decay",
    "initial_accumulator_value": "initial",
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
