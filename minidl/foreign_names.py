"""Names of other frameworks, and what they are called here: for error messages that help.

``dl.Linear`` is answered with "Dense", and ``lr=0.1`` with "learning_rate". A misspelt name is answered with
the name most like it. This module is loaded when a name was not found, never before.
"""

from __future__ import annotations

import re
import sys
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

#: Options of layers, operations, optimizers and trainings elsewhere, and ours: the first that exists counts.
OPTIONS: dict[str, str | tuple[str, ...]] = {
    # layers
    "units": ("out_features", "hidden_features"),
    "OutputSize": ("out_features", "hidden_features"),
    "outputSize": ("out_features", "hidden_features"),
    "features": ("out_features", "channels", "shape"),
    "num_features": ("features", "channels"),
    "normalized_shape": "features",
    "num_channels": ("channels", "features"),
    "embed_dim": "features",
    "d_model": "features",
    "num_heads": "heads",
    "key_dim": "features",
    "num_groups": "groups",
    "hidden_size": "hidden_features",
    "NumHiddenUnits": "hidden_features",
    "input_size": ("in_features", "in_channels"),
    "input_dim": ("in_features", "count"),
    "output_dim": ("out_features", "features"),
    "num_embeddings": "count",
    "embedding_dim": "features",
    "padding_idx": "padding_index",
    "filters": "out_channels",
    "num_filters": "out_channels",
    "NumFilters": "out_channels",
    "FilterSize": "kernel_size",
    "filter_size": "kernel_size",
    "kernel_shape": "kernel_size",
    "pool_size": "kernel_size",
    "window_shape": "kernel_size",
    "strides": "stride",
    "Stride": "stride",
    "Padding": "padding",
    "dilation_rate": "dilation",
    "DilationFactor": "dilation",
    "depth_multiplier": "multiplier",
    "scale_factor": "factor",
    "use_bias": "bias",
    "kernel_initializer": "weight_initializer",
    "kernel_init": "weight_initializer",
    "WeightsInitializer": "weight_initializer",
    "bias_init": "bias_initializer",
    "BiasInitializer": "bias_initializer",
    "p": ("rate", "probability"),
    "drop_rate": "rate",
    "Probability": "rate",
    "negative_slope": "slope",
    "is_causal": "causal",
    "batch_first": "(the batch is always the first axis)",
    "data_format": "(channels are always the last axis)",
    "input_shape": "(Dense(None, 10) takes its size from the first input)",
    "activation": "(activations are layers: dl.ReLU())",
    "inplace": "(there is nothing to set: compiled functions work in place where they can)",
    "affine": "(it always is)",
    "track_running_stats": "(it always does)",
    # operations
    "dim": "axis",
    "dims": ("axis", "axes"),
    "dim0": "axis1",
    "dim1": "axis2",
    "keepdim": "keepdims",
    "keep_dims": "keepdims",
    "unbiased": "ddof",
    "correction": "ddof",
    "size": ("shape", "kernel_size"),
    "input": ("x", "prediction"),
    "num_classes": "classes",
    "depth": "classes",
    "requires_gradient": "requires_grad",
    "loc": "mean",
    "scale": ("std", "gain"),
    "stddev": "std",
    "minval": "low",
    "maxval": "high",
    "a_min": "min",
    "a_max": "max",
    "rng": ("generator", "seed"),
    "key": ("generator", "seed"),
    "random_state": ("seed", "generator"),
    "static_argnums": "(whatever is no array is taken for granted, and guarded)",
    "fullgraph": "(the whole function is always recorded)",
    # losses
    "y_pred": "prediction",
    "y_true": "target",
    "labels": "target",
    "from_logits": "(there is binary_cross_entropy_with_logits; softmax_cross_entropy always takes logits)",
    "beta": ("delta", "momentum", "beta1"),
    # optimizers and schedules
    "params": "parameters",
    "lr": "learning_rate",
    "InitialLearnRate": "learning_rate",
    "base_lr": "learning_rate",
    "initial_learning_rate": "learning_rate",
    "eps": "epsilon",
    "Epsilon": "epsilon",
    "weight_decay": "l2",
    "L2Regularization": "l2",
    "Momentum": "momentum",
    "betas": "beta1, beta2",
    "beta_1": "beta1",
    "beta_2": "beta2",
    "b1": "beta1",
    "b2": "beta2",
    "rho": ("decay", "beta1"),
    "alpha": ("decay", "slope", "low"),
    "GradientDecayFactor": "beta1",
    "SquaredGradientDecayFactor": ("beta2", "decay"),
    "clipnorm": "clip_norm",
    "max_norm": "clip_global_norm",
    "global_clipnorm": "clip_global_norm",
    "clipvalue": "clip_value",
    "GradientThreshold": "clip_norm",
    "max_iter": "max_iterations",
    "MaxIterations": "max_iterations",
    "gamma": "factor",
    "decay_rate": "factor",
    "LearnRateDropFactor": "factor",
    "step_size": "period",
    "LearnRateDropPeriod": "period",
    "T_max": "steps",
    "decay_steps": ("steps", "period"),
    "total_steps": "steps",
    "warmup_steps": "steps",
    # training
    "model": "network",
    "net": "network",
    "loss_fn": "loss",
    "criterion": "loss",
    "MaxEpochs": "epochs",
    "max_epochs": "epochs",
    "num_epochs": "epochs",
    "nb_epoch": "epochs",
    "MiniBatchSize": "batch_size",
    "batchsize": "batch_size",
    "Shuffle": "shuffle",
    "ValidationData": "validation_data",
    "val_data": "validation_data",
    "ValidationFrequency": "validation_frequency",
    "ValidationPatience": "validation_patience",
    "patience": "validation_patience",
    "monitor": "objective",
    "ObjectiveMetricName": "objective",
    "OutputNetwork": "output_network",
    "OutputFcn": "callbacks",
    "Metrics": "metrics",
    "Plots": "plot",
    "Verbose": "verbose",
    "VerboseFrequency": "verbose_frequency",
    "CheckpointPath": "checkpoint_folder",
    "CheckpointFrequency": "checkpoint_frequency",
    "ExecutionEnvironment": "device",
}

#: Methods and attributes elsewhere, by the class that they are looked for in, and what to write here.
ATTRIBUTES: dict[str, dict[str, str]] = {
    "Tensor": {
        "cuda": ".to('gpu')",
        "cpu": ".to('cpu'), or .numpy() for an array",
        "get": ".numpy()",
        "view": ".reshape(...)",
        "permute": ".transpose(...)",
        "unsqueeze": "dl.expand_dims(x, axis)",
        "dim": ".ndim",
        "numel": ".size",
        "t": ".T",
        "mT": "dl.swapaxes(x, -2, -1)",
        "clamp": ".clip(min, max)",
        "clone": ".copy()",
        "contiguous": "nothing: there is no need for it",
        "expand": "dl.broadcast_to(x, shape)",
        "gather": "dl.take_along_axis(x, indices, axis)",
        "masked_fill": "dl.where(mask, value, x)",
        "mm": "x @ y",
        "bmm": "x @ y",
        "matmul": "x @ y",
        "pow": "x ** y",
        "abs": "abs(x)",
        "amax": ".max(axis)",
        "amin": ".min(axis)",
        "type": ".astype(dtype)",
        "float": ".astype('float32')",
        "double": ".astype('float64')",
        "half": ".astype('float16')",
        "long": ".astype('int64')",
        "int": ".astype('int32')",
        "bool": ".astype(bool)",
        "requires_grad_": "dl.tensor(x, requires_grad=True) where it is made",
        "retain_grad": "dl.grad(loss, x), which gives the gradient of any Tensor",
        "register_hook": "dl.grad(loss, x), which gives the gradient of any Tensor",
        "is_leaf": ".primitive is None",
        "grad_fn": ".primitive",
        "stop_gradient": ".detach()",
        **dict.fromkeys(("copy_", "fill_", "zero_", "add_", "sub_", "mul_", "div_", "set"), ".assign(value)"),
    },
    "Layer": {
        "cuda": ".to('gpu')",
        "cpu": ".to('cpu')",
        "float": ".astype('float32')",
        "double": ".astype('float64')",
        "half": ".astype('float16')",
        "zero_grad": "optimizer.zero_grad()",
        "modules": ".named_layers()",
        "named_modules": ".named_layers()",
        "children": ".named_children()",
        "buffers": ".named_tensors()",
        "named_buffers": ".named_tensors()",
        "add_module": "self.name = layer",
        "register_module": "self.name = layer",
        "register_parameter": "self.name = dl.Parameter(...)",
        "register_buffer": "self.name = dl.tensor(...), which is state",
        "add_weight": "self.name = dl.Parameter(...)",
        "requires_grad_": "parameter.requires_grad = False for each of .parameters()",
        "trainable": "parameter.requires_grad = False for each of .parameters()",
        "trainable_variables": ".parameters()",
        "trainable_weights": ".parameters()",
        "weights": ".parameters()",
        "get_weights": ".state_dict()",
        "set_weights": ".load_state_dict(state)",
        "save_weights": ".save(path)",
        "load_weights": ".load(path)",
        "count_params": ".parameter_count()",
        "fit": "dl.Trainer(network, loss).fit(x, y)",
        "compile": "dl.Trainer(network, loss, optimizer), whose steps are compiled",
        "predict": "dl.Trainer(network, loss).predict(x), or network(x)",
        "evaluate": "dl.Trainer(network, loss).evaluate(x, y)",
    },
    "BaseOptimizer": {
        "lr": ".learning_rate",
        "param_groups": ".parameters, each with learning_rate_factor and l2_factor",
        "apply_gradients": "loss.backward(); optimizer.step()",
        "update_state": ".step()",
        "state": ".named_tensors()",
        "weight_decay": ".l2",
    },
    "Trainer": {
        "train": ".fit(x, y)",
        "test": ".evaluate(x, y)",
        "model": ".network",
        "score": ".evaluate(x, y)",
    },
    "History": {"history": ".steps, .epochs and .validation"},
}

#: Options that are looked for in a wrong place, and where they belong.
PLACES: dict[str, str] = {
    **dict.fromkeys(
        ("epochs", "shuffle", "drop_last", "validation_data", "validation_frequency", "validation_patience"),
        "Trainer.fit()",
    ),
    **dict.fromkeys(("objective", "output_network", "callbacks", "plot", "verbose"), "Trainer.fit()"),
    **dict.fromkeys(("checkpoint_folder", "checkpoint_frequency", "resume"), "Trainer.fit()"),
    "batch_size": "Trainer.fit() and data.batches()",
    **dict.fromkeys(
        ("learning_rate", "l2", "momentum", "beta1", "beta2", "epsilon", "clip_norm", "clip_global_norm"),
        "the optimizer, for example dl.Adam(network.parameters(), learning_rate=0.001)",
    ),
    **dict.fromkeys(("loss", "metrics", "optimizer", "compile"), "Trainer()"),
    "kernels": "compile(), or of Trainer(compile={...})",
}


def hint(name: str, known: Iterable[str], table: Mapping[str, str | tuple[str, ...]]) -> str:
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
    answers = table.get(name, ())
    for ours in (answers,) if isinstance(answers, str) else answers:
        if ours.startswith("("):
            return f" {ours}"
        if re.split("[., ]", ours)[0] in known:
            return f": it is called {ours!r} here".replace(", ", "' and '")
    lower = {other.lower().replace("_", ""): other for other in known}
    plain = name.lower().replace("_", "")
    if plain in lower:
        return f": did you mean {lower[plain]!r}?"
    near = get_close_matches(plain, lower, n=1, cutoff=0.75)
    return f": did you mean {lower[near[0]]!r}?" if near else ""


def option_hint(name: str, known: Iterable[str]) -> str:
    """Return what to add to an error about an unknown option: our name for it, or where it belongs.

    >>> option_hint("MaxEpochs", ["network", "loss", "optimizer"])
    ": 'epochs' is an option of Trainer.fit()"
    """
    found = hint(name, known, OPTIONS)
    answers = OPTIONS.get(name, name)
    ours = next((x for x in ((answers,) if isinstance(answers, str) else answers) if x in PLACES), None)
    if not found or (found.startswith(": did you mean") and ours is not None):
        return found if ours is None else f": {ours!r} is an option of {PLACES[ours]}"
    return found


def attribute_problem(owner: object, name: str) -> str:
    """Return what to say of an attribute that an object does not have."""
    kind = type(owner)
    text = f"{kind.__name__!r} object has no attribute {name!r}"
    for part in kind.__mro__:
        here = ATTRIBUTES.get(part.__name__, {}).get(name)
        if here is not None:
            return f"{text}; here it is {here}"
        if part.__name__ == "Tensor" and name in dir(sys.modules["minidl"]):
            return f"{text}; it is a function: dl.{name}(x)"
    own = [*vars(owner)] if hasattr(owner, "__dict__") else []
    return text + hint(name, [known for known in (*own, *dir(kind)) if not known.startswith("_")], OPTIONS)
