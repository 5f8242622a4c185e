"""Training as people expect it: Trainer, history, progress, checkpoints."""

from minidl.errors import CheckpointError
from minidl.training.history import History
from minidl.training.trainer import Trainer

__all__ = ["CheckpointError", "History", "Trainer"]
