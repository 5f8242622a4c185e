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
from minidl.keywords import answer_in

if TYPE_CHECKING:
    from minidl.data.augmentation import Augmentation, augmented
    from minidl.data.idx import read_idx
    from minidl.data.idx_folder import read_idx_folder
    from minidl.data.mat import read_mat
    from minidl.data.principal_components import PCA, pca
    from minidl.data.text import Vocabulary, windows
    from minidl.data.treebank import PennTreebank, penn_treebank

__all__ = [
    "PCA",
    "Augmentation",
    "LabelledImages",
    "PennTreebank",
    "Vocabulary",
    "augmented",
    "batches",
    "check_finite",
    "digits",
    "partition",
    "pca",
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
    "PCA": "principal_components",
    "Augmentation": "augmentation",
    "PennTreebank": "treebank",
    "Vocabulary": "text",
    "augmented": "augmentation",
    "pca": "principal_components",
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
        globals()[name] = getattr(module, name)
        answer_in(globals(), [name])
        return globals()[name]
    if name == "upload_ahead":
        message = "minidl.data.upload_ahead is now called prefetch_to_device"
        warnings.warn(message, DeprecationWarning, stacklevel=2)
        return prefetch_to_device
    raise AttributeError(f"module 'minidl.data' has no attribute {name!r}")
