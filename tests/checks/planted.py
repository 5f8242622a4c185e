"""Layers with one mistake each, of the kinds that people make, and what a check should say about them.

Each function builds a broken layer. `planted` notes in which row of the report the mistake should show,
and words that must be in the explanation: the name of the Parameter or input, and the likely cause.
"""

import numpy

import minidl as dl
from minidl.primitives.primitive import Primitive, elementwise
from tests.checks.mistakes import Broken, multiply_with, named, parameter

PLANTED = {}
RULES = "gradients agree with differences"


def planted(row, *words, shape=(4,)):
    def keep(build):
        PLANTED[build.__name__] = (build, shape, row, words)
        return build

    return keep


def function_with(forward, rule):
    return elementwise(named("curve"), forward, gradients=(rule,), promotes_to_float=True)


def matrix_product(rule_a, rule_b):
    return Primitive(
        named("product"), lambda xp, a, b, out=None: xp.matmul(a, b, out=out), gradients=(rule_a, rule_b)
    )


# --- gradient rules -------------------------------------------------------------------------------


@planted(RULES, "gain", "scale_", "input 1", "wrong sign")
def sign_of_a_parameters_gradient():
    scale = multiply_with(lambda g, out, a, b: g * b, lambda g, out, a, b: -g * a)
    return Broken(lambda self, x: scale(x, self.gain), gain=parameter(4))


@planted(RULES, "input 0", "curve_", "factor 2 is missing")
def square_without_its_factor_2():
    square = function_with(lambda xp, x, out=None: xp.multiply(x, x, out=out), lambda g, out, x: g * x)
    return Broken(lambda self, x: square(x))


@planted(RULES, "gain", "scale_", "2 times the right gradient", "counted twice")
def contribution_counted_twice():
    scale = multiply_with(lambda g, out, a, b: g * b, lambda g, out, a, b: g * a + g * a)
    return Broken(lambda self, x: scale(x, self.gain), gain=parameter(4))


@planted(RULES, "gain", "wrong sign, and is 2 times")
def sign_and_factor():
    scale = multiply_with(lambda g, out, a, b: g * b, lambda g, out, a, b: -2 * g * a)
    return Broken(lambda self, x: scale(x, self.gain), gain=parameter(4))


@planted(RULES, "weight", "product_", "transpose of the right gradient")
def gradient_of_a_square_weight_transposed():
    product = matrix_product(lambda g, out, a, b: g @ b.T, lambda g, out, a, b: g.T @ a)
    return Broken(lambda self, x: product(x, self.weight), weight=parameter(4, 4))


@planted(RULES, "input 0", "product_", "input 1 should be transposed")
def missing_transpose_of_a_square_weight():
    product = matrix_product(lambda g, out, a, b: g @ b, lambda g, out, a, b: a.T @ g)
    return Broken(lambda self, x: product(x, self.weight), weight=parameter(4, 4))


@planted(RULES, "product_", "fails", "matmul: the last axis")
def missing_transpose_of_a_weight():
    product = matrix_product(lambda g, out, a, b: g @ b, lambda g, out, a, b: a.T @ g)
    return Broken(lambda self, x: product(x, self.weight), weight=parameter(4, 3))


@planted(RULES, "product_", "shape (3, 4)", "input of shape (4, 3)", "its transpose")
def gradient_of_a_weight_transposed():
    product = matrix_product(lambda g, out, a, b: g @ b.T, lambda g, out, a, b: g.T @ a)
    return Broken(lambda self, x: product(x, self.weight), weight=parameter(4, 3))


@planted(RULES, "bias", "shift_", "first observation alone", "sum over axis 0 is missing")
def forgotten_broadcast_sum():
    shift = elementwise(
        named("shift"),
        lambda xp, a, b, out=None: xp.add(a, b, out=out),
        gradients=(lambda g, out, a, b: g, lambda g, out, a, b: g[0]),
    )
    return Broken(lambda self, x: shift(x, self.bias), bias=parameter(4))


@planted(RULES, "bias", "shift_", "1/3 times", "number of observations", "mean for a sum")
def mean_over_the_batch_for_a_sum():
    shift = elementwise(
        named("shift"),
        lambda xp, a, b, out=None: xp.add(a, b, out=out),
        gradients=(lambda g, out, a, b: g, lambda g, out, a, b: g.mean(axis=0)),
    )
    return Broken(lambda self, x: shift(x, self.bias), bias=parameter(4))


@planted(RULES, "input 0", "average_", "5 is the length of axis 1", "a division by it is missing", shape=(5,))
def mean_whose_gradient_is_not_divided():
    average = Primitive(
        named("average"),
        lambda xp, x, out=None: xp.mean(x, axis=1, keepdims=True, out=out),
        gradients=(lambda g, out, x: g * dl.ones_like(x),),
    )
    return Broken(lambda self, x: average(x) * self.gain, gain=parameter(1))


@planted(RULES, "input 0", "average_", "it is 0", "cut off")
def integer_division_in_a_rule():
    average = Primitive(
        named("average"),
        lambda xp, x, out=None: xp.mean(x, axis=1, keepdims=True, out=out),
        gradients=(lambda g, out, x: g * dl.ones_like(x) * (1 // x.shape[1]),),
    )
    return Broken(lambda self, x: average(x) * self.gain, gain=parameter(1))


@planted(RULES, "input 0", "curve_", "ignores g")
def rule_that_ignores_the_gradient_from_above():
    sine = function_with(lambda xp, x, out=None: xp.sin(x, out=out), lambda g, out, x: dl.cos(x))
    return Broken(lambda self, x: sine(x) * 3)


@planted(RULES, "gain", "scale_", "rules of inputs", "exchanged")
def rules_exchanged():
    scale = multiply_with(lambda g, out, a, b: g * a, lambda g, out, a, b: g * b)
    return Broken(lambda self, x: scale(x, self.gain + 0 * x), gain=parameter(4))


@planted(RULES, "input 0", "curve_", "takes the input for the output")
def input_taken_for_the_output():
    squash = function_with(lambda xp, x, out=None: xp.tanh(x, out=out), lambda g, out, x: g * (1 - x * x))
    return Broken(lambda self, x: squash(x))


@planted(RULES, "input 0", "curve_", "a condition is turned around")
def relu_with_its_mask_turned_around():
    rectify = function_with(lambda xp, x, out=None: xp.maximum(x, 0, out=out), lambda g, out, x: g * (x < 0))
    return Broken(lambda self, x: rectify(x))


@planted(RULES, "input 0", "curve_", "gradient rule")
def sigmoid_with_a_plus():
    squash = function_with(
        lambda xp, x, out=None: xp.divide(1, 1 + xp.exp(-x), out=out), lambda g, out, x: g * out * (1 + out)
    )
    return Broken(lambda self, x: squash(x))


@planted(RULES, "input 0", "choice_", "depends on other elements of the input too")
def softmax_with_its_diagonal_alone():
    def forward(xp, x, out=None):
        e = xp.exp(x - xp.max(x, axis=-1, keepdims=True))
        return xp.divide(e, xp.sum(e, axis=-1, keepdims=True), out=out)

    choice = Primitive(named("choice"), forward, gradients=(lambda g, out, x: g * out * (1 - out),))
    return Broken(lambda self, x: choice(x))


@planted(RULES, "gain", "scale_", "wrong only at place 3 of axis 0")
def last_element_forgotten():
    def all_but_the_last(g, out, a, b):
        return dl.pad((g * a).sum(axis=0)[:-1], ((0, 1),))

    scale = multiply_with(lambda g, out, a, b: g * b, all_but_the_last)
    return Broken(lambda self, x: scale(x, self.gain), gain=parameter(4))


@planted(RULES, "weight", "product_", "factor that depends on the place along axis 1")
def scale_of_each_column_wrong():
    product = matrix_product(
        lambda g, out, a, b: g @ b.T, lambda g, out, a, b: a.T @ (g * dl.tensor([1.0, 2.0, 3.0], g.dtype))
    )
    return Broken(lambda self, x: product(x, self.weight), weight=parameter(4, 3))


@planted(RULES, "input 0", "curve_", "not a finite number")
def division_by_zero_in_a_rule():
    copy = function_with(
        lambda xp, x, out=None: xp.multiply(x, 1, out=out), lambda g, out, x: g * x / (x - x)
    )
    return Broken(lambda self, x: copy(x))


# --- forward, and what gradients need -------------------------------------------------------------


@planted(RULES, "input 0", "overwrites its input", "decay_")
def forward_that_overwrites_its_input():
    def forward(xp, x, out=None):
        x *= 0.5  # meant as a temporary
        return xp.exp(x, out=out)

    decay = Primitive(named("decay"), forward, gradients=(lambda g, out, x: 0.5 * g * out,))
    return Broken(lambda self, x: (lambda y: y * decay(y))(dl.sin(x)))


@planted(RULES, "input 0", "tanh", "overwritten")
def result_overwritten_after_use():
    def forward(self, x):
        y = dl.tanh(x)
        z = y * self.gain
        y.data *= 2
        return z

    return Broken(forward, gain=parameter(4))


@planted(RULES, "weight", "detach", "one of 2 uses")
def second_use_of_a_tied_weight_detached():
    return Broken(lambda self, x: dl.tanh(x @ self.weight) @ self.weight.detach().T, weight=parameter(4, 3))


@planted(RULES, "weight", "1 use(s)", ".data")
def second_use_of_a_tied_weight_by_its_array():
    return Broken(
        lambda self, x: dl.tanh(x @ self.weight) @ dl.tensor(self.weight.data.T), weight=parameter(4, 3)
    )


@planted("gradients exist", "gain", "cuts it off")
def part_of_forward_without_the_tape():
    def forward(self, x):
        with dl.no_grad():
            scaled = x * self.gain
        return scaled + x

    return Broken(forward, gain=parameter(4))


@planted(RULES, "input 0", "numpy()", "where gradients do not follow")
def computed_with_numpy():
    return Broken(
        lambda self, x: x * self.gain + dl.tensor(numpy.sin(x.numpy()), device=x.device), gain=parameter(4)
    )


@planted(RULES, "no_grad()", "input 0")
def statistics_without_the_tape():
    def forward(self, x):
        with dl.no_grad():
            mean = x.mean(axis=1, keepdims=True)
        return (x - mean) * self.gain

    return Broken(forward, gain=parameter(4))


@planted("gradients exist", "weight", "no gradient reaches")
def parameter_copied_once():
    weight = parameter(4, 3)
    return Broken(lambda self, x: x @ self.copy, weight=weight, copy=dl.Parameter(weight))


@planted("save and load", "stale cache")
def value_cached_at_the_first_call():
    def forward(self, x):
        if self.doubled is None:
            self.doubled = (self.weight * 2).data
        return x @ dl.tensor(self.doubled) + x @ self.weight

    return Broken(forward, weight=parameter(4, 3), doubled=None)


@planted(RULES, "earlier call")
def result_kept_with_its_tape():
    def forward(self, x):
        if self.kept is None:
            self.kept = dl.tanh(self.weight)
        return x @ self.kept

    return Broken(forward, weight=parameter(4, 3), kept=None)


@planted(RULES, "not repeatable", "random")
def random_numbers_of_numpy():
    source = numpy.random.default_rng(0)

    def forward(self, x):
        noise = source.normal(size=x.shape).astype(x.dtype.name) if self.training else 0
        return x * self.gain + noise

    return Broken(forward, gain=parameter(4))


# --- batches, modes, state ------------------------------------------------------------------------


@planted("observations are independent in evaluation", "output 0", "a mean")
def leakage_through_a_mean_over_the_batch():
    return Broken(lambda self, x: (x - x.mean(axis=0)) * self.gain, gain=parameter(4))


@planted("observations are independent in evaluation", "softmax along axis 0")
def softmax_along_the_batch():
    return Broken(lambda self, x: dl.softmax(x * self.gain, axis=0), gain=parameter(4))


@planted("observations are independent in evaluation", "place in the batch")
def first_observation_treated_apart():
    def forward(self, x):
        return dl.concatenate([x[:1] * self.gain, x[1:]], axis=0) if len(x) > 1 else x

    return Broken(forward, gain=parameter(4))


@planted("evaluation is repeatable", "self.training")
def dropout_in_evaluation_and_not_in_training():
    def forward(self, x):
        if self.training:
            return x
        kept = dl.primitives.random.random_uniform(x, generator=self.generator) >= 0.5
        return x * kept * 2

    return Broken(forward, generator=dl.Generator(0))


@planted("evaluation changes no state", "mean", "self.training")
def running_mean_updated_in_evaluation():
    def forward(self, x):
        self.mean.assign(0.9 * self.mean + 0.1 * x.detach().mean(axis=0))
        return (x - self.mean) * self.gain if self.training else x * self.gain

    return Broken(forward, gain=parameter(4), mean=dl.zeros(4))


@planted("training changes state only", "mean", "neither saved nor moved")
def running_mean_in_a_numpy_array():
    def forward(self, x):
        if self.training:
            self.mean = 0.9 * self.mean + 0.1 * x.data.mean(axis=0)
            return x * self.gain
        return (x - dl.tensor(self.mean.astype(x.dtype.name))) * self.gain

    return Broken(forward, gain=parameter(4), mean=numpy.zeros(4, "float32"))


@planted("training changes state only", "mean", "assign()")
def running_mean_replaced():
    def forward(self, x):
        if self.training:
            self.mean = 0.9 * self.mean + 0.1 * x.detach().mean(axis=0)
        return x * self.gain

    return Broken(forward, gain=parameter(4), mean=dl.zeros(4))


@planted("training changes state only", "gain", "optimizer's to do")
def parameter_normalised_in_place():
    def forward(self, x):
        if self.training:
            self.gain.assign(self.gain.detach() / self.gain.detach().sum())
        return x * self.gain

    return Broken(forward, gain=parameter(4))


@planted("nested in networks", "self.training")
def mode_kept_in_an_attribute_of_its_own():
    class Moody(dl.Layer):
        def __init__(self):
            self.gain = parameter(4)
            self.active = True

        def train(self, training=True):
            self.active = training
            return super().train(training)

        def forward(self, x):
            return x * self.gain * 2 if self.active else x * self.gain

    return Moody()


@planted("gradients agree with differences", "not repeatable")
def python_counter_that_matters():
    def forward(self, x):
        if self.training:
            self.steps[0] = self.steps[0] + 1
            return x * self.gain * (1 / self.steps[0])
        return x * self.gain * float(numpy.sin(x.data).sum())

    return Broken(forward, gain=parameter(4), steps=[0])


# --- sizes, dtypes, places ------------------------------------------------------------------------


@planted("one observation", "inputs of shape (1, 4)", "reshape")
def batch_size_written_in():
    return Broken(lambda self, x: (x.reshape(4, 2, 2) * self.gain).reshape(4, 4), gain=parameter(1))


@planted("output sizes", "axis 0 must have length")
def batch_axis_lost():
    return Broken(lambda self, x: (x * self.gain).sum(axis=0), gain=parameter(4))


@planted("output sizes", "(1, 4) in evaluation", "(1, 8) in training")
def other_size_in_training():
    return Broken(
        lambda self, x: dl.concatenate([x, x * self.gain], axis=1) if self.training else x * self.gain,
        gain=parameter(4),
    )


@planted("output types", "output 0 is float64", "take x.dtype")
def numpy_constant_of_float64():
    return Broken(lambda self, x: x * self.gain * dl.tensor(numpy.ones(4)), gain=parameter(4))


@planted("float64", "output 0 is float32", "fixed")
def converted_to_float32():
    return Broken(lambda self, x: (x * self.gain).astype("float32"), gain=parameter(4))


@planted("inputs are left alone", "input 0", "not x.data *= 2")
def input_scaled_in_place():
    def forward(self, x):
        x.data *= 2
        return x * self.gain

    return Broken(forward, gain=parameter(4))


@planted("one observation", "no Tensor, but numpy.ndarray")
def array_returned():
    return Broken(lambda self, x: (x * self.gain).numpy(), gain=parameter(4))


@planted("every Parameter is found", "1 Parameter(s)", "(4,)", "lists, tuples or dicts")
def parameter_hidden_in_an_object():
    class Box:
        pass

    box = Box()
    box.gain = parameter(4)
    return Broken(lambda self, x: x * self.box.gain, box=box)


@planted("methods have valid signatures", "forward", "1 input")
def forward_without_its_input():
    class Constant(dl.Layer):
        def forward(self):
            return dl.ones(3)

    return Constant()


@planted("methods have valid signatures", "train", "training")
def method_with_another_signature():
    class Stubborn(dl.Layer):
        def train(self):
            return self

        def forward(self, x):
            return x

    return Stubborn()


@planted(RULES, "gain", "scale_", "does not follow it at all")
def parameter_forgotten_in_forward():
    scale = elementwise(
        named("scale"),
        lambda xp, a, b, out=None: xp.multiply(a, 2, out=out),
        gradients=(lambda g, out, a, b: 2 * g, lambda g, out, a, b: g * a),
    )
    return Broken(lambda self, x: scale(x, self.gain), gain=parameter(4))


@planted(RULES, "bias", "scale_", "wrong only at places 2 to 5 of axis 0", shape=(9,))
def part_of_a_gradient_zero():
    def partly(g, out, a, b):
        return (g * a).sum(axis=0) * dl.tensor([1.0, 1, 0, 0, 0, 0, 1, 1, 1], g.dtype)

    scale = multiply_with(lambda g, out, a, b: g * b, partly)
    return Broken(lambda self, x: scale(x, self.bias), bias=parameter(9))


@planted(RULES, "bias", "scale_", "wrong only at places 0, 3 of axis 0", shape=(9,))
def places_of_a_gradient_zero():
    def partly(g, out, a, b):
        return (g * a).sum(axis=0) * dl.tensor([0.0, 1, 1, 0, 1, 1, 1, 1, 1], g.dtype)

    scale = multiply_with(lambda g, out, a, b: g * b, partly)
    return Broken(lambda self, x: scale(x, self.bias), bias=parameter(9))


@planted(RULES, "weight", "another gradient", "earlier call")
def result_kept_without_its_tape():
    def forward(self, x):
        if self.kept is None:
            self.kept = dl.tanh(self.weight).detach()
            return x @ dl.tanh(self.weight)
        return x @ self.kept

    return Broken(forward, weight=parameter(4, 3), kept=None)


@planted("gradients exist", "cut off from inputs and Parameters")
def everything_cut_off():
    return Broken(lambda self, x: (x * self.gain).detach(), gain=parameter(4))


@planted("output sizes", "alone", "in a batch")
def size_that_depends_on_the_batch():
    return Broken(lambda self, x: x * self.gain if len(x) > 1 else (x * self.gain)[:, :2], gain=parameter(4))


@planted("evaluation is repeatable", "a different one came before it")
def scale_taken_from_the_first_input():
    def forward(self, x):
        if not self.scale:
            self.scale.append(float(abs(x.data).max()))
        return x * self.gain * (1 / self.scale[0])

    return Broken(forward, gain=parameter(4), scale=[])


@planted("nested in networks", "its state is named", "0.0.gain")
def members_listed_by_another_name():
    class Renamed(dl.Layer):
        def __init__(self):
            self.gain = parameter(4)
            self.other = None

        def named_tensors(self):
            return (("secret", x) for _, x in super().named_tensors())

        def members(self):
            return {"gain": self.gain}

        def forward(self, x):
            return x * self.gain

    return Renamed()


@planted("methods have valid signatures", "Empty has no forward(self, x)")
def no_forward():
    class Empty(dl.Layer):
        pass

    return Empty()


@planted("gradients exist", "no gradient reaches unused")
def parameter_not_used():
    return Broken(lambda self, x: x * self.gain, gain=parameter(4), unused=parameter(2))
