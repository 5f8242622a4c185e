"""Training as people expect it: Trainer, history, progress, checkpoints."""

from minidl.training.checkpoints import CheckpointError
from minidl.training.history import History
from minidl.training.trainer import Trainer

__all__ = ["CheckpointError", "History", "Trainer"]
