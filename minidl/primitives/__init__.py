"""The operations, one file for each family; see primitive.py for what an operation is."""

# Primitives and tensor.py need each other; whoever comes first, tensor.py is read first.
import minidl.tensor  # noqa: F401
from minidl.program.lowered import sorted_scatter as scatter  # noqa: F401  # no one calls these by name, they are only listed
