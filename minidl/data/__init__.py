"""Images to train on, and what stands between a file and a mini-batch. Arrays only, no Tensors."""

import warnings
from typing import Any

from minidl.data.batches import batches
from minidl.data.digits import digits
from minidl.data.idx import read_idx, read_idx_folder
from minidl.data.labelled_images import LabelledImages
from minidl.data.mat import read_mat
from minidl.data.partition import partition
from minidl.data.prefetch import prefetch
from minidl.data.prefetch_to_device import prefetch_to_device
from minidl.data.validation import check_finite

__all__ = [
    "LabelledImages",
    "batches",
    "check_finite",
    "digits",
    "partition",
    "prefetch",
    "prefetch_to_device",
    "read_idx",
    "read_idx_folder",
    "read_mat",
]


def __getattr__(name: str) -> Any:
    if name == "upload_ahead":
        message = "minidl.data.upload_ahead is now called prefetch_to_device"
        warnings.warn(message, DeprecationWarning, stacklevel=2)
        return prefetch_to_device
    raise AttributeError(f"module 'minidl.data' has no attribute {name!r}")
