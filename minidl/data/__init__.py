"""Images and texts to train on, and what stands between a file and a mini-batch. Arrays only, no Tensors."""

import importlib
import warnings
from typing import TYPE_CHECKING, Any

from minidl.data.batches import batches
from minidl.data.digits import digits
from minidl.data.labelled_images import LabelledImages
from minidl.data.partition import partition
from minidl.data.prefetch import prefetch
from minidl.data.prefetch_to_device import prefetch_to_device
from minidl.data.validation import check_finite

if TYPE_CHECKING:
    from minidl.data.augmentation import Augmentation, augmented
    from minidl.data.idx import read_idx
    from minidl.data.idx_folder import read_idx_folder
    from minidl.data.mat import read_mat
    from minidl.data.text import Vocabulary, windows
    from minidl.data.treebank import PennTreebank, penn_treebank

__all__ = [
    "Augmentation",
    "LabelledImages",
    "PennTreebank",
    "Vocabulary",
    "augmented",
    "batches",
    "check_finite",
    "digits",
    "partition",
    "penn_treebank",
    "prefetch",
    "prefetch_to_device",
    "read_idx",
    "read_idx_folder",
    "read_mat",
    "windows",
]

#: Names that are loaded when they are first used, and from where: not every program reads every kind of data.
_WHEN_USED = {
    "Augmentation": "augmentation",
    "PennTreebank": "treebank",
    "Vocabulary": "text",
    "augmented": "augmentation",
    "penn_treebank": "treebank",
    "read_idx": "idx",
    "read_idx_folder": "idx_folder",
    "read_mat": "mat",
    "windows": "text",
}


def __dir__() -> list[str]:
    return sorted(__all__)


def __getattr__(name: str) -> Any:
    if name in _WHEN_USED:
        module = importlib.import_module(f"minidl.data.{_WHEN_USED[name]}")
        globals()[name] = value = getattr(module, name)
        return value
    if name == "upload_ahead":
        message = "minidl.data.upload_ahead is now called prefetch_to_device"
        warnings.warn(message, DeprecationWarning, stacklevel=2)
        return prefetch_to_device
    raise AttributeError(f"module 'minidl.data' has no attribute {name!r}")
