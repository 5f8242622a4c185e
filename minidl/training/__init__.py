"""The Trainer, and what it needs: loaders, history, progress, plots, checkpoints."""

from minidl.errors import CheckpointError
from minidl.training.callbacks import Callback
from minidl.training.history import History
from minidl.training.plateau import ReduceOnPlateau
from minidl.training.trainer import Trainer

__all__ = ["Callback", "CheckpointError", "History", "ReduceOnPlateau", "Trainer"]
