"""The operations, one file for each family; see primitive.py for what an operation is."""

# Primitives and tensor.py need each other: tensor.py is read first, whichever is asked for.
import minidl.tensor  # noqa: F401
