"""Taking work in and out: weights of other frameworks, ONNX, arrays, logs.

Everything here imports the other library when it is used.
"""

from minidl.interop.torch_weights import load_torch, save_torch, torch_state

__all__ = ["load_torch", "save_torch", "torch_state"]
