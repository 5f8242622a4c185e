"""Taking work in and out: weights of other frameworks, ONNX, arrays, logs.

Everything here imports the other library when it is used.
"""

from minidl.interop.keras_weights import load_keras
from minidl.interop.logs import CSVLog, JSONLinesLog, Log, MLflowLog, TensorBoardLog, WandbLog
from minidl.interop.mat_weights import load_mat, save_mat
from minidl.interop.onnx_export import to_onnx
from minidl.interop.onnx_reader import OnnxNetwork, read_onnx
from minidl.interop.torch_weights import load_torch, save_torch, torch_state

__all__ = [
    "CSVLog",
    "JSONLinesLog",
    "Log",
    "MLflowLog",
    "OnnxNetwork",
    "TensorBoardLog",
    "WandbLog",
    "load_keras",
    "load_mat",
    "load_torch",
    "read_onnx",
    "save_mat",
    "save_torch",
    "to_onnx",
    "torch_state",
]
