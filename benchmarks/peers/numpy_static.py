"""The step written by hand in NumPy, with care: every array allocated once, `out=` everywhere.

What a careful person does: all parameters (and gradients, and moments) are views of one vector, so that Adam
is a dozen calls over blocks that stay in cache; the inputs and gradients of both uses of a tied weight lie
under each other, so that its gradient is one matrix product; sums over the batch are `ones @ g`.
"""

import numpy as np

from benchmarks.jobs.autoencoder import BETA1, BETA2, EPSILON, L2, LAYERS, LEARNING_RATE, SIZES
from benchmarks.peers import Job

BLOCK = 32_768  # elements: five vectors of 128 KiB stay in the second-level cache


def build(weights: dict[str, np.ndarray], batch_size: int) -> Job:
    names = sorted(weights, key=lambda name: not name.startswith("weight"))
    parameters, flat_parameters = views_of_one_vector(weights, names)
    gradients, flat_gradients = views_of_one_vector(weights, names)
    weight_count = sum(weights[f"weight{i}"].size for i in LAYERS)
    network = Network(parameters, batch_size)
    backward = make_backward(network, gradients)
    update = make_adam(flat_parameters, flat_gradients, weight_count)

    def step(x):
        loss = network.forward(x)
        backward(x)
        update()
        return loss

    def evaluate(x):
        return Network(parameters, len(x)).forward(x)

    return Job(
        prepare=lambda x: x, step=step, evaluate=evaluate, save=lambda path: np.savez(path, **parameters)
    )


def views_of_one_vector(weights, names):
    """Copies of the weights, one after another in one vector; returns them by name, and the vector."""
    vector = np.concatenate([weights[name].ravel() for name in names])
    ends = np.cumsum([weights[name].size for name in names])
    parts = zip(names, np.split(vector, ends[:-1]), strict=True)
    return {name: part.reshape(weights[name].shape) for name, part in parts}, vector


class Network:
    """The forward pass into buffers of its own.

    For a tied weight W_i, `wide[i]` holds, under each other, the inputs of the encoder's layer i and the
    gradients of the decoder's (which the backward pass fills in); `narrow[i]` the gradients of the encoder's
    layer i and the inputs of the decoder's. Then the gradient of W_i is `wide[i].T @ narrow[i]`.
    """

    def __init__(self, parameters, batch_size):
        self.parameters = parameters
        self.batch_size = batch_size
        self.wide, self.narrow = {}, {}
        for i in LAYERS:
            self.wide[i] = np.empty((2 * batch_size, SIZES[i - 1]), np.float32)
            self.narrow[i] = np.empty((2 * batch_size, SIZES[i]), np.float32)
        self.logits = np.empty((batch_size, SIZES[0]), np.float32)
        self.scratch = np.empty_like(self.logits)

    def encoder_input(self, i):
        return self.wide[i][: self.batch_size]

    def decoder_input(self, i):
        return self.narrow[i][self.batch_size :]

    def forward(self, x):
        """Leave every activation and the logits in the buffers; return the loss."""
        np.copyto(self.encoder_input(1), x)
        for i in LAYERS:
            z = self.encoder_input(i + 1) if i < LAYERS[-1] else self.decoder_input(i)
            np.matmul(self.encoder_input(i), self.parameters[f"weight{i}"], out=z)
            np.add(z, self.parameters[f"encoder_bias{i}"], out=z)
            np.maximum(z, 0, out=z)
        for i in reversed(LAYERS):
            z = self.decoder_input(i - 1) if i > 1 else self.logits
            np.matmul(self.decoder_input(i), self.parameters[f"weight{i}"].T, out=z)
            np.add(z, self.parameters[f"decoder_bias{i}"], out=z)
            if i > 1:
                np.maximum(z, 0, out=z)
        return self.loss(x)

    def loss(self, x):
        """Sum of max(z, 0) + log(1 + exp(-|z|)) - x z, over the number of elements."""
        z, scratch = self.logits, self.scratch
        np.abs(z, out=scratch)
        np.negative(scratch, out=scratch)
        np.exp(scratch, out=scratch)
        np.log1p(scratch, out=scratch)
        total = np.sum(scratch) - np.vdot(x, z)
        np.maximum(z, 0, out=scratch)
        return float(total + np.sum(scratch)) / z.size


def make_backward(network, gradients):
    """The backward pass as a function of the batch: fills `gradients`."""
    batch_size, parameters = network.batch_size, network.parameters
    ones = np.ones(batch_size, np.float32)
    masks = {size: np.empty((batch_size, size), bool) for size in SIZES}
    encoded_gradient = {i: network.narrow[i][:batch_size] for i in LAYERS}
    decoded_gradient = {i: network.wide[i][batch_size:] for i in LAYERS}

    def times_slope_of_relu(g, output):
        mask = masks[g.shape[1]]
        np.greater(output, 0, out=mask)
        np.multiply(g, mask, out=g)

    def gradient_of_logits(x):
        """(sigmoid(logits) - x) / size, with sigmoid(z) = (1 + tanh(z / 2)) / 2: fast, cannot overflow."""
        g = decoded_gradient[1]
        np.multiply(network.logits, 0.5, out=g)
        np.tanh(g, out=g)
        np.multiply(g, 0.5, out=g)
        np.add(g, 0.5, out=g)
        np.subtract(g, x, out=g)
        np.multiply(g, np.float32(1 / x.size), out=g)

    def backward(x):
        gradient_of_logits(x)
        for i in LAYERS:
            np.matmul(ones, decoded_gradient[i], out=gradients[f"decoder_bias{i}"])
            g = decoded_gradient[i + 1] if i < LAYERS[-1] else encoded_gradient[i]
            np.matmul(decoded_gradient[i], parameters[f"weight{i}"], out=g)
            times_slope_of_relu(g, network.decoder_input(i))
        for i in reversed(LAYERS):
            np.matmul(ones, encoded_gradient[i], out=gradients[f"encoder_bias{i}"])
            if i > 1:
                g = encoded_gradient[i - 1]
                np.matmul(encoded_gradient[i], parameters[f"weight{i}"].T, out=g)
                times_slope_of_relu(g, network.encoder_input(i))
            np.matmul(network.wide[i].T, network.narrow[i], out=gradients[f"weight{i}"])

    return backward


def make_adam(parameters, gradients, weight_count):
    """Adam over whole vectors, the first `weight_count` elements with L2, in blocks that stay in cache."""
    first_moment, second_moment = np.zeros_like(parameters), np.zeros_like(parameters)
    scratch = np.empty(BLOCK, np.float32)
    starts = [*range(0, weight_count, BLOCK), *range(weight_count, len(parameters), BLOCK)]
    blocks = []
    for start, end in zip(starts, [*starts[1:], len(parameters)], strict=True):
        part = slice(start, end)
        vectors = (
            parameters[part],
            gradients[part],
            first_moment[part],
            second_moment[part],
            scratch[: end - start],
        )
        blocks.append((start < weight_count, *vectors))
    steps = 0

    def update():
        nonlocal steps
        steps += 1
        root = np.sqrt(1 - BETA2**steps)
        rate = np.float32(LEARNING_RATE * root / (1 - BETA1**steps))  # both bias corrections, as one factor,
        epsilon = np.float32(EPSILON * root)  # and what they make of epsilon
        for has_l2, parameter, gradient, first, second, temporary in blocks:
            if has_l2:
                np.multiply(parameter, L2, out=temporary)
                np.add(gradient, temporary, out=gradient)
            np.multiply(first, BETA1, out=first)
            np.multiply(gradient, 1 - BETA1, out=temporary)
            np.add(first, temporary, out=first)
            np.multiply(second, BETA2, out=second)
            np.multiply(gradient, gradient, out=gradient)
            np.multiply(gradient, 1 - BETA2, out=gradient)
            np.add(second, gradient, out=second)
            np.sqrt(second, out=temporary)
            np.add(temporary, epsilon, out=temporary)
            np.divide(first, temporary, out=temporary)
            np.multiply(temporary, rate, out=temporary)
            np.subtract(parameter, temporary, out=parameter)

    return update
