"""The Trainer, and what it needs: loaders, history, progress, plots, checkpoints."""

from minidl.errors import CheckpointError
from minidl.training.history import History
from minidl.training.trainer import Trainer

__all__ = ["CheckpointError", "History", "Trainer"]
