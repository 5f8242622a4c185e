"""PyTorch's own samples of arguments (its OpInfo database): values and gradients in float64.

Samples with arguments that ours do not have are left out; which ones, KEYWORDS_LEFT_OUT and LEFT_OUT say.
"""

import numpy
import pytest

import minidl as dl

torch = pytest.importorskip(
    "torch", reason="PyTorch, the oracle, is not installed: pip install -e '.[oracle]'"
)
database = pytest.importorskip(
    "torch.testing._internal.common_methods_invocations",
    reason="PyTorch's samples need the package expecttest",
    exc_type=ImportError,
)
pytestmark = [pytest.mark.oracle, pytest.mark.filterwarnings("ignore")]

#: PyTorch's names of keywords, and ours.
KEYWORDS = {"dim": "axis", "keepdim": "keepdims", "correction": "ddof", "dim1": "axis1", "dim2": "axis2"}
#: Keywords of PyTorch's that NumPy's functions, and so ours, do not have.
KEYWORDS_LEFT_OUT = {
    *("dtype", "alpha", "rounding_mode", "unbiased", "descending", "stable", "beta", "threshold"),
    *("device", "layout", "requires_grad", "pin_memory", "memory_format", "sorted", "out"),
}

#: Our functions by PyTorch's names for them.
OPERATIONS = {
    **{
        name: getattr(dl, name)
        for name in (
            *("exp", "exp2", "expm1", "log", "log2", "log10", "log1p", "logaddexp", "sqrt", "square"),
            *("sin", "cos", "tan", "sinh", "cosh", "tanh", "erf", "erfinv", "reciprocal", "sinc", "hypot"),
            *("floor", "ceil", "trunc", "round", "sign", "sigmoid", "nan_to_num"),
            *("maximum", "minimum", "isclose", "isnan", "isinf", "isfinite", "floor_divide"),
            *("logical_and", "logical_or", "logical_xor", "logical_not"),
            *("sum", "mean", "prod", "var", "std", "all", "any", "count_nonzero", "argmax", "argmin"),
            *("logsumexp", "softmax", "log_softmax", "cumsum", "cumprod", "argsort"),
            *("matmul", "inner", "outer", "trace", "diag", "diagonal", "tril", "triu"),
            *("reshape", "ravel", "squeeze", "broadcast_to", "roll", "tile"),
            *("stack", "vstack", "hstack", "atleast_1d", "atleast_2d", "take"),
        )
    },
    "transpose": dl.swapaxes,
    "movedim": dl.moveaxis,
    "flip": lambda x, dims: dl.flip(x, dims),
    "tensordot": lambda a, b, dims=2: dl.tensordot(a, b, dims),
    "take_along_dim": dl.take_along_axis,
    "abs": dl.absolute,
    "neg": dl.negative,
    "add": dl.add,
    "sub": dl.subtract,
    "mul": dl.multiply,
    "div": dl.divide,
    "pow": dl.power,
    "remainder": dl.mod,
    "eq": dl.equal,
    "ne": dl.not_equal,
    "lt": dl.less,
    "le": dl.less_equal,
    "gt": dl.greater,
    "ge": dl.greater_equal,
    "acos": dl.arccos,
    "asin": dl.arcsin,
    "atan": dl.arctan,
    "atan2": dl.arctan2,
    "acosh": dl.arccosh,
    "asinh": dl.arcsinh,
    "atanh": dl.arctanh,
    "clamp": dl.clip,
    "amax": dl.max,
    "amin": dl.min,
    "cat": dl.concatenate,
    "permute": dl.transpose,
    "unsqueeze": dl.expand_dims,
    "einsum": lambda operands, subscripts: dl.einsum(subscripts, *operands),
    "linalg.inv": dl.linalg.inv,
    "linalg.solve": dl.linalg.solve,
    "linalg.cholesky": lambda x, upper=False: (
        dl.swapaxes(dl.linalg.cholesky(x), -1, -2) if upper else dl.linalg.cholesky(x)
    ),
    "linalg.det": dl.linalg.det,
    "linalg.norm": dl.linalg.norm,
    "linalg.vector_norm": lambda x, ord=2, **options: dl.norm(x, ord, **options),
    "nn.functional.relu": dl.relu,
    "nn.functional.gelu": lambda x, approximate="none": dl.gelu(x, approximate == "tanh"),
    "nn.functional.silu": dl.silu,
    "nn.functional.softsign": dl.softsign,
    "nn.functional.leaky_relu": dl.leaky_relu,
    "nn.functional.elu": dl.elu,
    "nn.functional.selu": dl.selu,
    "nn.functional.logsigmoid": dl.log_sigmoid,
}


def one_number(sample):
    return sample.input.ndim == 0


def is_several(axes):
    return isinstance(axes, (list, tuple)) and len(axes) != 1


#: Samples that are left out: (operation, which of them, reason).
LEFT_OUT = {
    "cumsum": (one_number, "as in NumPy, the running sum of a number is a vector of one element"),
    "cumprod": (one_number, "as in NumPy, the running product of a number is a vector of one element"),
    "argsort": (
        lambda s: one_number(s) or len(s.args) > 1,
        "as in NumPy, the order of a number is a vector of one element, and there is no descending order",
    ),
    "logsumexp": (one_number, "as in NumPy, a number has no axes in a tuple"),
    "linalg.vector_norm": (
        lambda s: (
            one_number(s)
            or (s.kwargs.get("dim") is None and s.input.ndim > 1)
            or is_several(s.kwargs.get("dim"))
        ),
        "as in NumPy, a number is not a vector, and two axes are those of matrices",
    ),
    "transpose": (one_number, "a number has no axes to exchange"),
    "tensordot": (
        lambda s: 1 in s.input.shape,
        "PyTorch broadcasts axes of length 1; NumPy does not",
    ),
    "take_along_dim": (lambda s: len(s.args) < 2, "without an axis PyTorch takes all elements in one"),
    "atleast_1d": (lambda s: isinstance(s.input, (list, tuple)), "ours takes several Tensors by themselves"),
    "atleast_2d": (lambda s: isinstance(s.input, (list, tuple)), "ours takes several Tensors by themselves"),
    "linalg.norm": (
        lambda s: {2, -2, "nuc"} & {*s.args, s.kwargs.get("ord")} and s.input.ndim != 1,
        "norms of matrices by singular values",
    ),
    "linalg.solve": (lambda s: s.args[0].ndim + 1 == s.input.ndim > 2, "NumPy has no batches of vectors"),
    "squeeze": (lambda s: s.args and s.input.ndim, "axes whose length is not 1 are refused, as in NumPy"),
    "cat": (lambda s: len({x.ndim for x in s.input}) > 1, "an empty vector does not fit matrices"),
    "var": (lambda s: s.kwargs.get("correction") is None, "by default NumPy divides by the count"),
    "std": (lambda s: s.kwargs.get("correction") is None, "by default NumPy divides by the count"),
}


def samples(name):
    """Return PyTorch's samples for an operation that ours can take, each with the function that takes it."""
    left_out, _ = LEFT_OUT.get(name, (lambda sample: False, ""))
    for info in database.op_db:
        if info.name == name and info.variant_test_name in ("", "no_rounding_mode"):
            for sample in info.sample_inputs("cpu", torch.float64, requires_grad=info.supports_autograd):
                if not (KEYWORDS_LEFT_OUT & sample.kwargs.keys() or left_out(sample)):
                    yield info.op, sample


def ours(x):
    """Return PyTorch's Tensors in a nest as ours."""
    if isinstance(x, torch.Tensor):
        return dl.tensor(x.detach().numpy(), requires_grad=x.requires_grad)
    return type(x)(map(ours, x)) if isinstance(x, (list, tuple)) else x


@pytest.mark.parametrize("name", OPERATIONS)
def test_samples_of_pytorch(name):
    compared = 0
    for theirs, sample in samples(name):
        expected = theirs(sample.input, *sample.args, **sample.kwargs)
        x, options = ours(sample.input), {KEYWORDS.get(k, k): ours(v) for k, v in sample.kwargs.items()}
        result = OPERATIONS[name](x, *ours(sample.args), **options)
        message = f"{name}: {sample}"
        numpy.testing.assert_allclose(
            result.numpy(), expected.detach().resolve_neg().numpy(), 1e-9, 1e-12, err_msg=message
        )
        compared += 1
        if isinstance(x, dl.Tensor) and x.requires_grad and expected.requires_grad:
            (g,) = torch.autograd.grad(
                expected.sum(), sample.input, materialize_grads=True, allow_unused=True
            )
            if result.requires_grad:
                mine = dl.grad(result.sum(), x).numpy()
                numpy.testing.assert_allclose(mine, g.numpy(), 1e-8, 1e-10, err_msg=f"gradient of {message}")
            else:
                assert not g.any(), message
    assert compared, "nothing was compared"
