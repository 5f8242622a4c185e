"""Linear algebra under the names of numpy.linalg."""

from minidl.primitives.linear_algebra import cholesky, det, inv, matmul, outer, slogdet, solve, tensordot
from minidl.primitives.reduction import norm

__all__ = ["cholesky", "det", "inv", "matmul", "norm", "outer", "slogdet", "solve", "tensordot"]
