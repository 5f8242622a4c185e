"""Images to train on, and what stands between a file and a mini-batch. Arrays only, no Tensors."""

from minidl.data.batches import batches
from minidl.data.digits import digits
from minidl.data.finite import check_finite
from minidl.data.idx import read_idx, read_idx_folder
from minidl.data.labelled_images import LabelledImages
from minidl.data.mat import read_mat
from minidl.data.partition import partition
from minidl.data.prefetch import prefetch
from minidl.data.upload import upload_ahead

__all__ = [
    "LabelledImages",
    "batches",
    "check_finite",
    "digits",
    "partition",
    "prefetch",
    "read_idx",
    "read_idx_folder",
    "read_mat",
    "upload_ahead",
]
