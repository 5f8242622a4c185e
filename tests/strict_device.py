"""A stand-in for CuPy without a GPU: device arrays that refuse what CuPy's refuse.

`module` has the functions of NumPy, but they take and return only the ``ndarray`` of this file
(and Python and NumPy scalars). A NumPy array among the arguments is an error, and so is every
implicit conversion of a device array to one.
"""

import types

import numpy


def _inside(value):
    """Return what NumPy computes with; refuse NumPy arrays, which live on the host."""
    if isinstance(value, ndarray):
        return value.host
    if isinstance(value, numpy.ndarray):
        raise TypeError("Unsupported type <class 'numpy.ndarray'>: it is not on the device")
    if isinstance(value, (list, tuple)):
        return type(value)(_inside(v) for v in value)
    if isinstance(value, dict):
        return {k: _inside(v) for k, v in value.items()}
    return value


def _outside(value):
    if isinstance(value, (numpy.ndarray, numpy.generic)):
        return ndarray(numpy.asarray(value))
    return tuple(map(_outside, value)) if isinstance(value, tuple) else value


def _on_device(function):
    def call(*arguments, **options):
        result = function(*_inside(arguments), **_inside(options))
        out = options.get("out")
        return out if out is not None else _outside(result)

    return call


class _Device:
    id = 0

    def __init__(self, number=0):
        assert number == 0

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        pass


class ndarray:
    __array_ufunc__ = None
    __array_priority__ = 100
    device = _Device()

    def __init__(self, host):
        assert type(host) is numpy.ndarray
        self.host = host

    def __array__(self, *arguments, **options):
        raise TypeError("Implicit conversion to a NumPy array is not allowed.")

    def __setitem__(self, key, value):
        self.host[_inside(key)] = _inside(value)

    def __len__(self):
        return len(self.host)

    shape = property(lambda self: self.host.shape)
    ndim = property(lambda self: self.host.ndim)
    size = property(lambda self: self.host.size)
    dtype = property(lambda self: self.host.dtype)
    strides = property(lambda self: self.host.strides)
    item = property(lambda self: self.host.item)
    tolist = property(lambda self: self.host.tolist)
    fill = property(lambda self: self.host.fill)

    def __bool__(self):
        return bool(self.host)

    def __iter__(self):
        raise TypeError("iterating over a device array copies each element")


for _name in ("reshape", "transpose", "astype", "copy", "nonzero", "sum", "min", "max", "__getitem__"):
    setattr(ndarray, _name, _on_device(getattr(numpy.ndarray, _name)))


class _Generator:
    def __init__(self, seed):
        self.host = numpy.random.default_rng(seed)

    def random(self, size, dtype, out=None):
        return _on_device(self.host.random)(size, dtype=dtype, out=out)

    def standard_normal(self, size, dtype, out=None):
        return _on_device(self.host.standard_normal)(size, dtype=dtype, out=out)


class _Module(types.ModuleType):
    ndarray = ndarray
    float32, float64 = numpy.float32, numpy.float64
    cuda = types.SimpleNamespace(
        is_available=lambda: True,
        Device=_Device,
        runtime=types.SimpleNamespace(getDeviceCount=lambda: 1),
    )
    random = types.SimpleNamespace(default_rng=_Generator)

    class add:
        def __new__(cls, *arguments, **options):
            return _on_device(numpy.add)(*arguments, **options)

        at = staticmethod(_on_device(numpy.add.at))

    @staticmethod
    def asarray(value):
        return value if isinstance(value, ndarray) else ndarray(numpy.array(value))

    @staticmethod
    def asnumpy(array):
        return array.host.copy()

    def __getattr__(self, name):
        return _on_device(getattr(numpy, name))


module = _Module("cupy")
