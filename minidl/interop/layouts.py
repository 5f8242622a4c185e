"""How arrays of layers look in other frameworks: entries of names and orders of axes, and their use.

A framework's table says for each kind of layer which of its arrays make which of ours. torch_weights.py and
mat_weights.py have one each.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy

from minidl import weight_names
from minidl.layers import Dense, Layer
from minidl.tensor import Tensor
from minidl.weight_names import LoadReport, Renaming

Array = numpy.ndarray
Arrays = dict[str, Array]
#: The (height, width, channels) of the images that Dense layers take flattened, by the layers' names.
Images = Mapping[str, tuple[int, int, int]]


@dataclass(frozen=True)
class Entry:
    """How some arrays of a layer look elsewhere.

    Attributes
    ----------
    theirs, ours : their names there and in our Layer
    read : the function from their arrays to ours
    write : the function from our arrays to theirs
    optional : names among theirs that may be missing; read() is given None for them
    """

    theirs: tuple[str, ...]
    ours: tuple[str, ...]
    read: Callable[..., tuple[Array, ...]]
    write: Callable[..., tuple[Array, ...]]
    optional: tuple[str, ...] = ()


def same(theirs: str, ours: str) -> Entry:
    """Return the entry of an array that looks the same."""
    return Entry((theirs,), (ours,), lambda x: (x,), lambda x: (x,))


def transposed(theirs: str, ours: str) -> Entry:
    """Return the entry of a matrix (out, in), which is ours (in, out)."""
    return Entry((theirs,), (ours,), lambda x: (x.T,), lambda x: (x.T,))


@dataclass(frozen=True)
class Layouts:
    """The table of a framework.

    Attributes
    ----------
    layers : the entries of each kind of layer, or a function from a layer to them; subclasses have those of
        their base
    flattened : the function from (height, width, channels) to the entry of a Dense layer's weight for images
        that the framework flattens in its own order
    other : the function from the name and the shape of a Tensor that is in no entry of a layer to one
    """

    layers: Mapping[type[Layer], tuple[Entry, ...] | Callable[[Any], tuple[Entry, ...]]]
    flattened: Callable[[int, int, int], Entry]
    other: Callable[[str, tuple[int, ...]], Entry] = lambda name, shape: same(name, name)

    def of(self, layer: Layer) -> tuple[Entry, ...]:
        """Return the entries of a layer."""
        found = next((self.layers[kind] for kind in type(layer).__mro__ if kind in self.layers), ())
        return found(layer) if callable(found) else found


Named = tuple[str, Layer, Entry]


def load(
    network: Layer,
    layouts: Layouts,
    state: Mapping[str, Array],
    shared: Mapping[str, str],
    source: str,
    *,
    strict: bool,
    prefix: str,
    rename: Renaming | None,
    flattened: Images | None,
) -> LoadReport:
    """Set a network's Parameters and state from arrays of another framework.

    Names are translated first, as Layer.load_state_dict() says, and then arrays.

    Parameters
    ----------
    state : their arrays by their names
    shared : the further names of arrays that are there once, each with the name in the state
    """
    found: Arrays = {}
    origin: dict[str, str] = {}
    for old, array in state.items():
        for other in [old, *(alias for alias, kept in shared.items() if kept == old)]:
            new = weight_names.renamed(other, prefix, rename)
            if new is None:
                continue
            if new in found and not numpy.array_equal(found[new], array, equal_nan=True):
                raise ValueError(f"{source} has two different arrays for {new}: {origin[new]} and {old}")
            found[new], origin[new] = array, origin.get(new, old)
    ours, sources = _translate(_entries(network, layouts, flattened, within=True), found)
    report = weight_names.load(
        dict(network.named_tensors()), ours, network.shared_names(), strict=strict, source=source
    )
    report.loaded = {
        new: " + ".join(origin[part] for part in sources.get(old, (old,)))
        for new, old in report.loaded.items()
    }
    report.unexpected = [origin.get(old, old) for old in report.unexpected]
    return report


def state_of(network: Layer, layouts: Layouts, flattened: Images | None) -> tuple[Arrays, dict[str, str]]:
    """Return the arrays of a network for another framework, and the further names of shared ones."""
    state: Arrays = {}
    others: dict[str, str] = {}
    first: dict[tuple[Any, ...], tuple[str, ...]] = {}  # by the Tensors that an entry is made of
    for name, layer, entry in _entries(network, layouts, flattened):
        tensors = dict(_tensors(layer))
        parts = [tensors[part] for part in entry.ours]
        theirs = tuple(f"{name}{part}" for part in entry.theirs)
        made_of: list[Any] = [*parts] or [layer]
        before = first.setdefault((*map(id, made_of), entry.theirs), theirs)
        if before is not theirs:
            others |= dict(zip(theirs, before, strict=True))
            continue
        arrays = entry.write(*(x.numpy() for x in parts))
        state |= {new: numpy.asarray(x, order="C") for new, x in zip(theirs, arrays, strict=True)}
    return state, others


def _tensors(layer: Layer) -> Iterator[tuple[str, Tensor]]:
    """Yield Parameters and state under all their names."""
    state = {id(x) for _, x in layer.named_tensors()}
    return ((name, x) for name, x in layer.named_occurrences() if isinstance(x, Tensor) and id(x) in state)


def _entries(network: Layer, layouts: Layouts, flattened: Images | None, within: bool = False) -> list[Named]:
    """Return the name of each Layer, with a dot at its end, the Layer, and each of its entries.

    ``within`` looks into layers of the table, too.
    """
    images = dict(flattened or {})
    entries = list(islice(_walk(network, layouts, "", within, ()), 10_000))
    for i, (name, layer, entry) in enumerate(entries):
        if name[:-1] in images and isinstance(layer, Dense) and entry.ours == ("weight",):
            height, width, channels = image = images.pop(name[:-1])
            if height * width * channels != layer.in_features:
                raise ValueError(f"flattened= says that {name[:-1]} takes images {image}; it is {layer!r}")
            entries[i] = (name, layer, layouts.flattened(height, width, channels))
    if images:
        raise ValueError(f"flattened= names {', '.join(images)}, which is no Dense layer of the network")
    return entries


def _walk(
    layer: Layer, layouts: Layouts, prefix: str, within: bool, around: tuple[Layer, ...]
) -> Iterator[Named]:
    """Yield what _entries() returns; a Tensor that is in no entry of a layer has one of its own."""
    table = layouts.of(layer)
    names = {name: x.shape for name, x in _tensors(layer)}
    entries = [entry for entry in table if all(part in names for part in entry.ours)]
    children = [] if table and not within else list(layer.named_children())
    covered = {part for entry in entries for part in entry.ours}
    inside = tuple(f"{name}." for name, _ in layer.named_children())
    own = [name for name in names if name not in covered and not (children and name.startswith(inside))]
    for entry in [*entries, *(layouts.other(name, names[name]) for name in own)]:
        yield prefix, layer, entry
    for name, child in children:
        if not any(child is outer for outer in (*around, layer)):
            yield from _walk(child, layouts, f"{prefix}{name}.", within, (*around, layer))


def _translate(entries: list[Named], found: Arrays) -> tuple[Arrays, dict[str, tuple[str, ...]]]:
    """Return arrays by our names, the rest under theirs; and from which of theirs each was made."""
    ours: Arrays = {}
    sources: dict[str, tuple[str, ...]] = {}
    consumed: set[str] = set()
    for name, layer, entry in entries:
        theirs = {f"{name}{part}": part in entry.optional for part in entry.theirs}
        if any(part not in found and not may_lack for part, may_lack in theirs.items()):
            continue
        parts = tuple(part for part in theirs if part in found)
        try:
            made = entry.read(*(found.get(part) for part in theirs))
        except ValueError as error:
            shapes = ", ".join(f"{part} {found[part].shape}" for part in parts)
            raise ValueError(f"no {type(layer).__name__} has the arrays {shapes}: {error}") from error
        new = [f"{name}{part}" for part in entry.ours]
        ours |= dict(zip(new, made, strict=True))
        sources |= dict.fromkeys(new, parts)
        consumed.update(parts)
    return ours | {name: array for name, array in found.items() if name not in consumed}, sources
