"""The C statements of convolutions that add up products in registers, with nothing unfolded in memory.

A band of rows of one image, with its border of zeros, lies in scratch memory that stays in the L1 or L2
cache. There, the elements of a window are a few runs of numbers side by side. A tile of results is held in
registers: some rows, each of one or two vectors of output channels. Each round of the innermost loop adds to
each row a number times a vector. In the convolution the rows are neighbouring pixels, and the rounds go over
the elements of a window; in the gradient of the weights the rows are elements of a window, and the rounds go
over the pixels.

Vectors are an extension that gcc and clang share; where a processor has none of that size they use others.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy

from minidl.program.cpu.c_code import CSource
from minidl.program.cpu.loops import c_type, loop, smaller
from minidl.program.expressions import Unsupported
from minidl.program.plan.strides import element_strides

#: Elements of a band of an image: 128 KiB of float32.
BAND = 2**15

#: With more bytes of weights for the vectors of a tile, products of matrices are as fast.
MAX_WEIGHTS = 160 << 10

#: Up to how many tiles of a window are written out; more become a loop.
MAX_WRITTEN = 4

#: Bytes of the shortest vectors that are used.
NARROW = 32


@dataclass(frozen=True)
class Form:
    """A convolution over two middle axes of one group of channels, in elements."""

    lengths: tuple[int, int]
    counts: tuple[int, int]
    window: tuple[int, int]
    stride: tuple[int, int]
    before: tuple[int, int]
    dilation: tuple[int, int]

    def covered(self, rows: int) -> tuple[int, int]:
        """Return the height and width of the part of an image that some rows of windows cover."""
        height, width = ((k - 1) * d + 1 for k, d in zip(self.window, self.dilation, strict=True))
        return (rows - 1) * self.stride[0] + height, (self.counts[1] - 1) * self.stride[1] + width


def direct_conv_statement(
    source: CSource, x: numpy.ndarray, w: numpy.ndarray, out: numpy.ndarray, form: Form
) -> str:
    """Return the loops of a convolution of x by weights.

    Raises
    ------
    Unsupported
        The output channels do not fill vectors, or there are so many weights that BLAS is as fast.
    """
    images, channels = _Images(source, x, out, form), out.shape[-1]

    def rows(registers: _Registers) -> Iterator[str]:
        yield f"{loop('i', 'm')} {loop('v', str(channels), step=registers.columns)} {{"
        for first, last, count in _tiles(form.counts[1], registers.rows):
            tile = _Tile(registers, [q * images.right for q in range(count)])
            yield f"{loop('j', str(last), str(first), count)} {{"
            yield from tile.zeros()
            yield f"{images.runs} {loop('t', str(images.run))}"
            yield from tile.products(
                f"image + i * {images.down} + j * {images.right} + {images.run_place} + t",
                f"w + ({images.run_number} + t) * {channels} + v",
            )
            yield from tile.stores(f"y + ((u + i) * {form.counts[1]} + j) * {channels} + v", channels, "=")
            yield "}"
        yield "}"

    return images.statement(w, rows)


def direct_conv_weight_statement(
    source: CSource, x: numpy.ndarray, g: numpy.ndarray, out: numpy.ndarray, form: Form
) -> str:
    """Return the loops that add the gradient of the weights to ``out``, image after image.

    Raises
    ------
    Unsupported
        As by direct_conv_statement().
    """
    images, channels = _Images(source, x, g, form), out.shape[-1]
    places = images.places()

    def tile_of(registers: _Registers, offsets: Sequence[int], first: str, number: str) -> Iterator[str]:
        """Yield what adds up the products of a tile over all pixels."""
        tile = _Tile(registers, offsets)
        yield from tile.zeros()
        yield f"{loop('i', 'm')} {loop('j', str(form.counts[1]))}"
        yield from tile.products(
            f"image + i * {images.down} + j * {images.right}{first}",
            f"y + ((u + i) * {form.counts[1]} + j) * {channels} + v",
        )
        yield from tile.stores(f"w + ({number}) * {channels} + v", channels, "+=")

    def rows(registers: _Registers) -> Iterator[str]:
        yield f"{loop('v', str(channels), step=registers.columns)} {{"
        if len(places) <= MAX_WRITTEN * registers.rows:
            for first, last, count in _tiles(len(places), registers.rows):
                for t in range(first, last, count):
                    yield "{"
                    yield from tile_of(registers, places[t : t + count], "", str(t))
                    yield "}"
        else:
            yield f"{images.runs} {{"
            for first, last, count in _tiles(images.run, registers.rows):
                yield f"{loop('t', str(last), str(first), count)} {{"
                place = f" + {images.run_place} + t"
                yield from tile_of(registers, range(count), place, f"{images.run_number} + t")
                yield "}"
            yield "}"
        yield "}"

    return images.statement(out, rows)


def _tiles(length: int, most: int) -> Iterator[tuple[int, int, int]]:
    """Yield (first, last, count): tiles of nearly equal numbers of rows, of at most two different ones."""
    tiles = -(-length // most)
    count, larger = divmod(length, tiles)
    if larger:
        yield 0, larger * (count + 1), count + 1
    yield larger * (count + 1), length, count


class _Registers:
    """How many elements a vector has, and how many rows of how many vectors of results fit in registers."""

    def __init__(self, size: int, results: int, channels: int, itemsize: int):
        self.width = size // itemsize
        if channels % self.width:
            self.width = NARROW // itemsize
        if channels % self.width:
            raise Unsupported("channels that do not fill vectors")
        self.vectors = 1 if channels // self.width % 2 else 2
        self.rows = results // self.vectors
        self.columns = self.width * self.vectors


class _Tile:
    """The statements about a tile of results: ``offsets`` say where the number for each of its rows lies."""

    def __init__(self, registers: _Registers, offsets: Sequence[int]):
        self.offsets, self.width = offsets, registers.width
        self.places = list(itertools.product(range(len(offsets)), range(registers.vectors)))
        self.vectors = range(registers.vectors)

    def zeros(self) -> Iterator[str]:
        yield f"vector {', '.join(f'r{row}_{v} = {{0}}' for row, v in self.places)};"

    def products(self, numbers: str, vectors: str) -> Iterator[str]:
        yield f"{{ number *a = {numbers}, *b = {vectors};"
        yield " ".join(f"vector b{v} = *(vector *) (b + {v * self.width});" for v in self.vectors)
        yield " ".join(f"r{row}_{v} += a[{self.offsets[row]}] * b{v};" for row, v in self.places)
        yield "}"

    def stores(self, target: str, distance: int, operator: str) -> Iterator[str]:
        yield f"{{ number *a = {target};"
        for row, v in self.places:
            yield f"*(vector *) (a + {row * distance + v * self.width}) {operator} r{row}_{v};"
        yield "}"


class _Images:
    """The loops over images, band by band, and where the windows of a band lie.

    Attributes
    ----------
    down, right : how far apart, in a band, windows lie that are neighbours
    runs : the loops over the runs of a window, which have ``run`` elements
    run_place : where a run begins in a band, and ``run_number`` which element of the window that is
    """

    def __init__(self, source: CSource, x: numpy.ndarray, y: numpy.ndarray, form: Form):
        if x.dtype != y.dtype:
            raise Unsupported("a convolution of two dtypes")
        self.source, self.x, self.y, self.form = source, x, y, form
        (height, width), channels = form.window, x.shape[-1]
        steps = element_strides(x)
        self.image, self.line = steps[0], steps[1] if x.ndim == 4 else 0
        self.pixel, self.element = steps[-2:]
        covered = form.covered(form.counts[0])
        self.is_in_place = (
            form.before == (0, 0)
            and all(c <= n for c, n in zip(covered, form.lengths, strict=True))
            and (self.element == 1 or channels == 1)
        )
        self.band = form.counts[0]
        if not self.is_in_place:
            self.pixel, self.own_line = channels, covered[1] * channels
            while self.band > 1 and form.covered(self.band)[0] * self.own_line > BAND:
                self.band = -(-self.band // 2)
        else:
            self.own_line = self.line
        self.down, self.right = form.stride[0] * self.own_line, form.stride[1] * self.pixel
        down, right = form.dilation[0] * self.own_line, form.dilation[1] * self.pixel
        self.runs, self.run = loop("h", str(height)), width * channels
        self.run_place, self.run_number = f"h * {down}", f"h * {self.run}"
        if right != channels:
            self.runs, self.run = f"{self.runs} {loop('k', str(width))}", channels
            self.run_place = f"h * {down} + k * {right}"
            self.run_number = f"(h * {width} + k) * {channels}"

    def places(self) -> list[int]:
        """Return where the elements of a window lie."""
        down, right = self.form.dilation[0] * self.own_line, self.form.dilation[1] * self.pixel
        ranges = (*map(range, self.form.window), range(self.x.shape[-1]))
        return [h * down + k * right + c for h, k, c in itertools.product(*ranges)]

    def statement(self, w: numpy.ndarray, rows: Callable[[_Registers], Iterator[str]]) -> str:
        """Return the loops around those over the rows of a band, for processors with AVX-512 and others."""
        kind, y = c_type(self.y.dtype), self.y
        wide, common = (_Registers(*sizes, y.shape[-1], y.itemsize) for sizes in ((64, 16), (NARROW, 12)))
        if w.size // w.shape[-1] * wide.columns * w.itemsize > MAX_WEIGHTS:
            raise Unsupported("as many weights as these")
        if y.size == 0:
            return ";"
        count = self.form.counts[0]
        pointers = f"*x = {self.source.address(self.x)}, *y = {self.source.address(y)}"
        lines = [f"{{ typedef {kind} number;", f"number {pointers}, *w = {self.source.address(w)};"]
        body = [
            loop("n", str(len(y))),
            f"{loop('o', str(count), step=self.band)} {{",
            f"int64_t m = {smaller(f'{count} - o', self.band)}, u = n * {count} + o;",
        ]
        if self.is_in_place:
            body += [f"number *image = x + n * {self.image} + o * {self.form.stride[0] * self.line};"]
        else:
            height = self.form.covered(self.band)[0]
            band = numpy.zeros(max(height * self.own_line, 1), y.dtype)  # the border on both sides stays
            lines += [f"number *image = {self.source.address(band)};"]
            body += [*self._copied()]
        for condition, registers in (("#ifdef __AVX512F__", wide), ("#else", common)):
            size = registers.width * y.itemsize
            attributes = f"vector_size({size}), aligned({y.itemsize}), may_alias"
            lines += [f"\n{condition}\n typedef {kind} vector __attribute__(({attributes}));"]
            lines += [*body, *rows(registers), "}"]
        return "\n    ".join([*lines, "\n#endif\n }"])

    def _copied(self) -> Iterator[str]:
        """Yield the loops that copy the rows of a band."""
        form, channels = self.form, self.x.shape[-1]
        (before, left), (height, width) = form.before, form.lengths
        covered = self.own_line // channels if channels else 0
        first, last = max(left, 0), max(min(left + width, covered), left, 0)
        line, row_end = self.own_line, form.covered(1)[0]
        pixel, element = element_strides(self.x)[-2:]
        yield f"{loop('r', f'(m - 1) * {form.stride[0]} + {row_end}')} {{"
        yield f"int64_t q = o * {form.stride[0]} + r - {before}; number *to = image + r * {line};"
        yield f"if (q < 0 || q >= {height}) {{ {loop('c', str(line))} to[c] = 0; }}"
        yield f"else {{ number *from = x + n * {self.image} + q * {self.line} + {(first - left) * pixel};"
        yield f"to += {first * channels};"
        if pixel == channels and (element == 1 or channels == 1):
            yield f"{loop('c', str((last - first) * channels))} to[c] = from[c];"
        else:
            yield f"{loop('j', str(last - first))} {loop('c', str(channels))}"
            yield f"to[j * {channels} + c] = from[j * {pixel} + c * {element}];"
        yield "} }"
