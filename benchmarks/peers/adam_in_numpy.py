"""Adam for the peers that have no such optimizer: in place, array by array."""

import numpy as np

from benchmarks.jobs.autoencoder import BETA1, BETA2, EPSILON, L2, LEARNING_RATE


class Adam:
    """Updates NumPy arrays in place; those named weight.. with L2."""

    def __init__(self, parameters: dict[str, np.ndarray]):
        self.parameters = parameters
        self.first_moments = {name: np.zeros_like(value) for name, value in parameters.items()}
        self.second_moments = {name: np.zeros_like(value) for name, value in parameters.items()}
        self.scratch = {name: np.empty_like(value) for name, value in parameters.items()}
        self.steps = 0

    def step(self, gradients: dict[str, np.ndarray]) -> None:
        """The gradients are left as they are."""
        self.steps += 1
        root = (1 - BETA2**self.steps) ** 0.5
        rate = LEARNING_RATE * root / (1 - BETA1**self.steps)  # both bias corrections, as one factor
        for name, parameter in self.parameters.items():
            gradient, scratch = gradients[name], self.scratch[name]
            first, second = self.first_moments[name], self.second_moments[name]
            if name.startswith("weight"):
                gradient = np.add(gradient, np.multiply(parameter, L2, out=scratch))
            first *= BETA1
            first += np.multiply(gradient, 1 - BETA1, out=scratch)
            second *= BETA2
            np.multiply(gradient, gradient, out=scratch)
            scratch *= 1 - BETA2
            second += scratch
            np.sqrt(second, out=scratch)
            scratch += EPSILON * root
            np.divide(first, scratch, out=scratch)
            scratch *= rate
            parameter -= scratch
