"""Layers: what a network is built from."""

from minidl.layers.activations import ReLU, Sigmoid, Softmax, Tanh
from minidl.layers.dense import Dense
from minidl.layers.dropout import Dropout
from minidl.layers.layer import Layer
from minidl.layers.network import Network
from minidl.layers.normalize import Normalize
from minidl.layers.shape import Flatten, Reshape

__all__ = [
    "Dense",
    "Dropout",
    "Flatten",
    "Layer",
    "Network",
    "Normalize",
    "ReLU",
    "Reshape",
    "Sigmoid",
    "Softmax",
    "Tanh",
]
