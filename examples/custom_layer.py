"""Write your own layer, check it, and see how the check reports two mistakes.

The layer scales each observation to mean 0 and variance 1, then multiplies by a gain that is learned.
Run it: it prints the report of a wrong version, then that of the right one.
"""

import minidl as dl


class WrongStandardize(dl.Layer):
    """With two mistakes that cause no shape error."""

    def __init__(self, features):
        self.gain = dl.Parameter(dl.ones(features))

    def forward(self, x):
        centered = x - x.mean(axis=0)  # over the batch: one observation changes the others
        deviation = dl.sqrt((centered * centered).mean(axis=-1, keepdims=True) + 1e-5)
        return centered / deviation.detach() * self.gain  # not a constant: it depends on x


class Standardize(dl.Layer):
    """The corrected layer: (batch, features) to (batch, features)."""

    def __init__(self, features):
        self.gain = dl.Parameter(dl.ones(features))

    def forward(self, x):
        centered = x - x.mean(axis=-1, keepdims=True)
        deviation = dl.sqrt((centered * centered).mean(axis=-1, keepdims=True) + 1e-5)
        return centered / deviation * self.gain


def main():
    print(dl.check_layer(WrongStandardize(6), (6,)))
    print("\n--- corrected ---\n")
    print(dl.check_layer(Standardize(6), (6,)))


if __name__ == "__main__":
    main()
