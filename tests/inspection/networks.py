"""Networks that the tests of the inspection share."""

import minidl as dl


class Tied(dl.Layer):
    def __init__(self):
        self.encoder = dl.Network([dl.Flatten(), dl.Dense(12, 6, seed=0), dl.ReLU()])
        self.dense = [self.encoder[1]]
        self.bias = dl.Parameter(dl.zeros(12))

    def forward(self, x):
        return dl.sigmoid(self.encoder(x) @ self.dense[0].weight.T + self.bias).reshape(x.shape)


class TwoInputs(dl.Layer):
    def __init__(self):
        self.left, self.right, self.last = dl.Dense(3, 4), dl.Network([dl.Dense(5, 4)]), dl.Dense(4, 2)

    def forward(self, x, z):
        h, g = self.left(x), self.right(z)
        return self.last(h + g) + 0.5 * self.last(h), g
