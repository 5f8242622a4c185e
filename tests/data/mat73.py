"""Files of version 7.3 as MATLAB writes them, made with h5py.

A block of 512 bytes before the HDF5 file, attributes that say what is what, axes reversed, references into
the group "#refs#".
"""

import numpy

CLASSES = {"f8": "double", "f4": "single"}
CLASSES |= {f"{sign}{size}": f"{'u' * (sign == 'u')}int{8 * size}" for sign in "iu" for size in (1, 2, 4, 8)}


class Structs(list):
    """An array of structs: dicts with the same keys."""


def write(path, variables, objects=None, **options):
    """Write variables, arrays in MATLAB's shapes; ``options`` are those of h5py's datasets."""
    import h5py

    with h5py.File(path, "w", userblock_size=512) as file:
        writer = _Writer(h5py, file, options)
        for name, value in variables.items():
            writer.put(file, name, value)
        if objects is not None:
            group = file.create_group("#subsystem#")
            item = writer.references(group, "MCOS", objects)
            writer.mark(item, "FileWrapper__", MATLAB_object_decode=numpy.int32(3))
    header = (
        b"MATLAB 7.3 MAT-file, Platform: GLNXA64, Created on: Tue Dec  1 10:00:00 2026 HDF5 schema 1.00 ."
    )
    with open(path, "r+b") as file:
        file.write(header.ljust(116) + bytes(8) + b"\x00\x02IM")


class _Writer:
    def __init__(self, h5py, file, options):
        self.h5py, self.file, self.options = h5py, file, options

    def mark(self, item, kind, **more):
        item.attrs["MATLAB_class"] = numpy.bytes_(kind)
        for name, value in more.items():
            item.attrs[name] = value

    def put(self, group, name, value):
        if isinstance(value, str):
            codes = numpy.frombuffer(value.encode("utf-16-le"), "u2").reshape(1, -1)
            return self.array(group, name, codes, "char", MATLAB_int_decode=numpy.int32(2))
        if isinstance(value, Structs):
            item = group.create_group(name)
            self.mark(item, "struct")
            for field in value[0]:
                self.references(item, field, [row[field] for row in value])
            return item
        if isinstance(value, dict):
            item = group.create_group(name)
            self.mark(item, "struct", MATLAB_fields=self.names(value))
            for field, inner in value.items():
                self.put(item, field, inner)
            return item
        if isinstance(value, list):
            item = self.references(group, name, value)
            self.mark(item, "cell", **({} if value else {"MATLAB_empty": numpy.uint8(1)}))
            return item
        if value.dtype == bool:
            return self.array(group, name, value.astype("u1"), "logical", MATLAB_int_decode=numpy.int32(1))
        if value.dtype.kind == "c":
            pairs = numpy.zeros(value.shape, [("real", "f8"), ("imag", "f8")])
            pairs["real"], pairs["imag"] = value.real, value.imag
            return self.array(group, name, pairs, "double")
        return self.array(group, name, value, CLASSES[value.dtype.newbyteorder("=").str[1:]])

    def names(self, fields):
        """Return names as sequences of single characters, of which MATLAB makes its attribute."""
        names = numpy.empty(len(fields), self.h5py.vlen_dtype("S1"))
        for i, name in enumerate(fields):
            names[i] = numpy.array([*name], "S1")
        return names

    def array(self, group, name, value, kind, **more):
        if value.size == 0:
            item = group.create_dataset(name, data=numpy.array(value.shape, "u8"))
            more["MATLAB_empty"] = numpy.uint8(1)
        else:
            item = group.create_dataset(name, data=value.T, **self.options)
        self.mark(item, kind, **more)
        return item

    def references(self, group, name, values):
        store = self.file.require_group("#refs#")
        if not values:
            return group.create_dataset(name, data=numpy.zeros(2, "u8"))
        item = group.create_dataset(name, (len(values), 1), self.h5py.ref_dtype)
        for i, value in enumerate(values):
            item[i, 0] = self.put(store, f"x{len(store)}", value).ref
        return item
