"""Layers: what a network is built from."""

from minidl.layers.activations import (
    ELU,
    GELU,
    LeakyReLU,
    PReLU,
    ReLU,
    Sigmoid,
    SiLU,
    Softmax,
    Softplus,
    Tanh,
)
from minidl.layers.attention import MultiHeadAttention
from minidl.layers.batch_statistics import fit_batch_norm
from minidl.layers.convolution import Conv1D, Conv2D, ConvTranspose2D, DepthwiseConv2D
from minidl.layers.dense import Dense
from minidl.layers.dropout import Dropout
from minidl.layers.embedding import Embedding
from minidl.layers.layer import Layer
from minidl.layers.network import Network
from minidl.layers.normalization import BatchNorm, GroupNorm, LayerNorm, RMSNorm
from minidl.layers.normalize import Normalize
from minidl.layers.pooling import AveragePool2D, GlobalAveragePool2D, MaxPool2D, UpSample2D
from minidl.layers.rbm import RBM
from minidl.layers.recurrent import GRU, LSTM, RNN
from minidl.layers.shape import Flatten, Reshape

__all__ = [
    "ELU",
    "GELU",
    "GRU",
    "LSTM",
    "RBM",
    "RNN",
    "AveragePool2D",
    "BatchNorm",
    "Conv1D",
    "Conv2D",
    "ConvTranspose2D",
    "Dense",
    "DepthwiseConv2D",
    "Dropout",
    "Embedding",
    "Flatten",
    "GlobalAveragePool2D",
    "GroupNorm",
    "Layer",
    "LayerNorm",
    "LeakyReLU",
    "MaxPool2D",
    "MultiHeadAttention",
    "Network",
    "Normalize",
    "PReLU",
    "RMSNorm",
    "ReLU",
    "Reshape",
    "SiLU",
    "Sigmoid",
    "Softmax",
    "Softplus",
    "Tanh",
    "UpSample2D",
    "fit_batch_norm",
]
