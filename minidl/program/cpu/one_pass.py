"""The C statements of OnePass: loops over a group, with its sums and its max pooling.

All but the last axis are rows, which have columns. Each column has a sum of its own, kept beside the data in
the first cache; a sum of everything adds them up in the end. Where rows are short and lie side by side,
several are taken as one. With max pooling, a round takes what lies in one window, row by row. Sums are sums
of sums, as in reductions.py.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence

import numpy

from minidl.primitives.windows import scatter_to_maxima_, select_maxima_
from minidl.program.cpu.c_code import CSource
from minidl.program.cpu.loops import MAX_UNROLLED, c_type, index, loop, smaller, stored_type
from minidl.program.cpu.reductions import COLUMN_RUN, LANES
from minidl.program.cpu.statements import FLOATS_ONLY
from minidl.program.expressions import Unsupported, expression
from minidl.program.plan.strides import Axis, broadcast_strides, walk
from minidl.program.program import Instruction, OnePass, Value

#: How many elements of a row, at most, are computed before the largest ones are found.
ROW = 1024

#: How many rows of an image, at most, are added up before they are added to the sum of sums.
MAX_RUN = 512


def one_pass_statement(
    source: CSource, step: OnePass, places: dict[Value, numpy.ndarray], shape: tuple[int, ...]
) -> str:
    """Return the loops of a group, its sums and its max pooling: see lowering.Statement."""
    pooling = any(not member.is_elementwise for member in step.members)
    return (_Windows if pooling else _Rows)(source, step, places, shape).text()


class _Code:
    """The code of one block, as it is being written.

    Attributes
    ----------
    places : the arrays of the values that are read or written, but for sums; their numbers name them in C
    strides : of each of these, broadcast to the shape
    """

    def __init__(
        self, source: CSource, step: OnePass, places: dict[Value, numpy.ndarray], shape: tuple[int, ...]
    ):
        self.source, self.step, self.shape, self.columns = source, step, shape, shape[-1]
        self.sums = [(partial, places[partial.output]) for partial in step.sums]
        of_sums = {partial.output for partial in step.sums}
        self.places = {value: array for value, array in places.items() if value not in of_sums}
        self.number = {value: i for i, value in enumerate(self.places)}
        self.members = [member for member in step.members if member.is_elementwise]
        self.computed = {member.output for member in step.members}
        self.strides = {v: broadcast_strides(a, self._shape_of(v)) for v, a in self.places.items()}

    def _shape_of(self, value: Value) -> tuple[int, ...]:
        return self.shape

    def text(self) -> str:
        lines = [
            f"{stored_type(value.dtype)} *q{i} = {self.source.address(self.places[value])};"
            for value, i in self.number.items()
        ]
        for i, (partial, array) in enumerate(self.sums):
            kind = c_type(partial.output.dtype)
            lines.append(f"{kind} *y{i} = {self.source.address(array)}; double t{i}[{self.columns}] = {{0}};")
        lines += [] if 0 in self.shape else self.loops()
        columns = loop("c", str(self.columns))
        for i, (partial, _) in enumerate(self.sums):
            if len(partial.axis) < len(partial.value.shape):
                lines.append(f"{columns} y{i}[c] = t{i}[c];")
            else:
                lines.append(f"{{ double t = 0; {columns} t += t{i}[c]; y{i}[0] = t; }}")
        return "{ " + "\n    ".join(lines) + " }"

    def loops(self) -> Iterator[str]:
        """Yield the loops over all elements."""
        raise NotImplementedError

    def begin_run(self, width: int) -> Iterator[str]:
        """Yield what begins sums of a few rows of this width."""
        for i, (partial, _) in enumerate(self.sums):
            yield f"{c_type(partial.output.dtype)} u{i}[{width}] = {{0}};"

    def end_run(self, width: int) -> Iterator[str]:
        """Yield what adds the sums of a few rows to those of all."""
        place = "c" if width == self.columns else f"c % {self.columns}"
        for i in range(len(self.sums)):
            yield f"{loop('c', str(width))} t{i}[{place}] += u{i}[c];"

    def element(self, names: dict[Value, str], place: Callable[[Value], str]) -> Iterator[str]:
        """Yield what is computed of one element: ``names`` are those of values that are known already."""
        yield from self.computing(names, self.members, place)
        for value in self.number:
            if value in self.computed and value in names:
                yield f"{place(value)} = {names[value]};"
        for i, (partial, _) in enumerate(self.sums):
            yield f"u{i}[c] += {names[partial.value]};"

    def computing(
        self,
        names: dict[Value, str],
        members: Sequence[Instruction],
        place: Callable[[Value], str],
    ) -> Iterator[str]:
        """Yield what computes members whose results have no names yet, and names them and what they read."""
        numbers = {member.output: i for i, member in enumerate(self.members)}
        for member in members:
            if member.output in names:
                continue
            for value in member.inputs:
                if value not in names:
                    names[value] = f"v{self.number[value]}"
                    yield f"{stored_type(value.dtype)} {names[value]} = {place(value)};"
            if member.primitive in FLOATS_ONLY and member.output.dtype.kind != "f":
                raise Unsupported
            written = expression(member, names, c_type)
            names[member.output] = f"w{numbers[member.output]}"
            yield f"{c_type(member.output.dtype)} {names[member.output]} = {written};"


class _Rows(_Code):
    """The code of a group with sums alone."""

    def loops(self) -> Iterator[str]:
        steps = [self.strides[value] for value in self.places]
        self.axes = walk(self.shape[:-1], [s[:-1] for s in steps]) or [Axis(1, (0,) * len(steps))]
        *outer, rows = self.axes
        yield " ".join(loop(f"k{i}", str(axis.length)) for i, axis in enumerate(outer))
        yield "{"
        together = self._rows_together()
        whole = rows.length // together
        yield from self._rows(0, whole, together)
        if whole * together < rows.length:
            yield from self._rows(whole * together, rows.length, 1)
        yield "}"

    def _rows_together(self) -> int:
        """Return how many rows are taken as one: those of every array are side by side, or the same."""
        if len(self.axes) > 1 or not 1 < self.columns * 2 <= LANES:
            return 1
        (rows,) = self.axes
        pairs = zip(rows.strides, (self.strides[value][-1] for value in self.places), strict=True)
        fits = all((row, step) == (self.columns, 1) or (row == 0 and step in (0, 1)) for row, step in pairs)
        return min(LANES // self.columns, rows.length) if fits else 1

    def _rows(self, first: int, end: int, together: int) -> Iterator[str]:
        """Yield the loops over rows, of which some are taken as one."""
        width = self.columns * together
        yield "{"
        for value, i in self.number.items():
            if together > 1 and self._is_repeated(value):
                yield f"{stored_type(value.dtype)} r{i}[{width}];"
                yield f"{loop('c', str(width))} r{i}[c] = q{i}[c % {self.columns}];"
        yield f"{loop('q', str(end), str(first), COLUMN_RUN)} {{"
        yield from self.begin_run(width)
        yield f"{loop('r', smaller(f'q + {COLUMN_RUN}', end), 'q')} {{"
        names: dict[Value, str] = {}
        for value, i in self.number.items():
            if value not in self.computed and not self.strides[value][-1]:
                names[value] = f"v{i}"
                yield f"{stored_type(value.dtype)} v{i} = q{i}[{self._start(value, together)}];"

        def place(value: Value) -> str:
            i, step = self.number[value], self.strides[value][-1]
            if together > 1 and self._is_repeated(value):
                return f"r{i}[c]"
            return f"q{i}[{self._start(value, together)} + c * {step}]"

        yield "INDEPENDENT"
        yield f"{loop('c', str(width))} {{"
        yield from self.element(names, place)
        yield "} }"
        yield from self.end_run(width)
        yield "} }"

    def _is_repeated(self, value: Value) -> bool:
        """Return whether several rows, taken as one, read one row of an array again and again."""
        stays = self.axes[-1].strides[self.number[value]] == 0
        return stays and self.strides[value][-1] == 1 and value not in self.computed

    def _start(self, value: Value, together: int) -> str:
        """Return where a row of an array begins."""
        number = self.number[value]
        if together > 1:
            return f"r * {self.columns * together}" if self.axes[-1].strides[number] else "0"
        names = [*(f"k{i}" for i in range(len(self.axes) - 1)), "r"]
        return index(names, self.axes, number)


class _Windows(_Code):
    """The code of a group with max pooling.

    It takes what lies under some windows side by side: row after row is computed, and then, window by window,
    the largest elements are found. In between, rows are kept in the first cache.

    Attributes
    ----------
    rows : where the rows under a window are, from its first one
    windows : how many windows are taken at a time
    length : how many elements of one row lie under them
    kept : the names of rows that are kept, of values that are computed before the largest elements are known
    """

    def __init__(
        self, source: CSource, step: OnePass, places: dict[Value, numpy.ndarray], shape: tuple[int, ...]
    ):
        pooling = {member.primitive: member for member in step.members if not member.is_elementwise}
        self.scatter, self.select = pooling.get(scatter_to_maxima_), pooling.get(select_maxima_)
        self.window: tuple[int, ...] = next(iter(pooling.values())).attributes["window"]
        self.of_windows = [self.scatter.inputs[0]] if self.scatter else []
        self.of_windows += [self.select.output] if self.select else []
        super().__init__(source, step, places, shape)
        self.rows = list(itertools.product(*map(range, self.window[:-1])))
        self.windows = min(max(ROW // (self.window[-1] * self.columns), 1), self._counts()[-1])
        self.length = self.windows * self.window[-1] * self.columns
        self.kept: dict[Value, str] = {}

    def _shape_of(self, value: Value) -> tuple[int, ...]:
        """Return the shape to which the array of a value is broadcast."""
        return (*self._counts(), self.columns) if value in self.of_windows else self.shape

    def _counts(self) -> tuple[int, ...]:
        """Return how many images there are, and how many windows along each of their axes."""
        return (self.shape[0], *(n // w for n, w in zip(self.shape[1:-1], self.window, strict=True)))

    def loops(self) -> Iterator[str]:
        images, *outer, last = (
            loop(f"k{i}", str(count), step=self.windows if i == len(self.window) else 1)
            for i, count in enumerate(self._counts())
        )
        for value, i in self.number.items():
            if self._is_repeated(value):
                yield f"{stored_type(value.dtype)} r{i}[{self.length}];"
                step = self.strides[value][-1]
                yield f"{loop('c', str(self.length))} r{i}[c] = q{i}[c % {self.columns} * {step}];"
        has_long_runs = math.prod(self.shape[1:]) > MAX_RUN * self.length
        if has_long_runs:
            yield f"{images} {' '.join(outer)} {{"
            yield from self.begin_run(self.length)
            yield f"{last} {{"
        else:
            yield f"{images} {{"
            yield from self.begin_run(self.length)
            yield f"{' '.join(outer)} {last} {{"
        name, count = f"k{len(self.window)}", self._counts()[-1]
        yield (
            f"int64_t m = {smaller(f'{count} - {name}', self.windows)};"
            if count % self.windows
            else (f"enum {{ m = {self.windows} }};")
        )
        if self.scatter is not None:
            yield from self._before(self.scatter)
            yield from self._chosen(self.scatter)
        yield from self._behind()
        if self.select is not None:
            yield from self._selected(self.select)
        yield "}"
        yield from self.end_run(self.length)
        yield "}"

    # --- rows -------------------------------------------------------------------------------------

    def _before(self, scatter: Instruction) -> Iterator[str]:
        """Yield the loops over rows for what is computed before the largest elements are known."""
        at = self.step.members.index(scatter)
        before, behind = self.step.members[:at], self.step.members[at + 1 :]
        needed = {value for member in behind for value in member.inputs}
        needed |= {scatter.inputs[1], *self.places, *(partial.value for partial, _ in self.sums)}
        made = [member.output for member in before if member.output in needed]
        self.kept = {value: f"b{i}" for i, value in enumerate(made)}
        for value, name in self.kept.items():
            yield f"{c_type(value.dtype)} {name}[{len(self.rows) * self.length}];"
        if self.kept:
            for n, row in enumerate(self.rows):
                names: dict[Value, str] = {}
                body = list(self.computing(names, before, lambda value, row=row: self._in_row(value, row)))  # type: ignore[misc]
                body += [
                    f"{name}[{n * self.length} + c] = {names[value]};" for value, name in self.kept.items()
                ]
                yield from self._over_row(body)

    def _behind(self) -> Iterator[str]:
        """Yield the loops over rows for all the rest."""
        if self.select is not None:
            yield f"{c_type(self.select.output.dtype)} found[{len(self.rows) * self.length}];"
        for n, row in enumerate(self.rows):
            at = f"{n * self.length} + c"
            names = {value: f"{name}[{at}]" for value, name in self.kept.items()}
            if self.scatter is not None:
                names[self.scatter.output] = f"part[{at}]"
            body = list(self.element(names, lambda value, row=row: self._in_row(value, row)))  # type: ignore[misc]
            if self.select is not None:
                body.append(f"found[{at}] = {names[self.select.inputs[0]]};")
            yield from self._over_row(body)

    def _over_row(self, body: Sequence[str]) -> Iterator[str]:
        """Yield a loop over the elements of a row, of which ``c`` is the number."""
        yield "INDEPENDENT"
        yield f"{loop('c', f'm * {self.window[-1] * self.columns}')} {{"
        yield from (f"    {line}" for line in body)
        yield "}"

    def _in_row(self, value: Value, row: tuple[int, ...]) -> str:
        """Return the element of an array that is number ``c`` of a row."""
        number, (*_, pixel, column) = self.number[value], self.strides[value]
        if self._is_repeated(value):
            return f"r{number}[c]"
        start = self._start(value, (*row, 0))
        if pixel == column * self.columns:
            return f"q{number}[{start} + c * {column}]"
        return f"q{number}[{start} + c / {self.columns} * {pixel} + c % {self.columns} * {column}]"

    def _is_repeated(self, value: Value) -> bool:
        """Return whether the same few numbers are read for each pixel."""
        strides = self.strides[value]
        return value not in self.computed and value not in self.of_windows and not any(strides[:-1])

    def _start(self, value: Value, tap: tuple[int, ...]) -> str:
        """Return where an element of the first window lies; in arrays of one for each window, that one."""
        strides = self.strides[value][:-1]
        is_of_windows = value in self.of_windows
        steps = (1, *((1,) * len(tap) if is_of_windows else self.window))
        axes = [Axis(1, (stride * step,)) for stride, step in zip(strides, steps, strict=True)]
        offset = 0 if is_of_windows else sum(s * t for s, t in zip(strides, (0, *tap), strict=True))
        return f"{index([f'k{i}' for i in range(len(axes))], axes, 0)} + {offset}"

    # --- windows ----------------------------------------------------------------------------------

    def _chosen(self, scatter: Instruction) -> Iterator[str]:
        """Yield the loops that put gradients where the largest elements of windows lie, and 0 elsewhere.

        The first of them counts; NaN is the largest. There are no conditions, of which compilers make jumps.
        """
        g, x = scatter.inputs
        kind, bits = c_type(x.dtype), f"int{8 * x.dtype.itemsize}_t"
        if x in self.kept:
            elements = [f"{self.kept[x]}[{at} + c]" for at in self._taps()]
        else:
            elements = [self._in_window(x, tap) for tap in itertools.product(*map(range, self.window))]
        body = [f"{kind} best = {elements[0]}; {bits} is0 = -1, later = 0;"]
        body += [f"{bits} is{n} = replace_{kind}(&best, {x});" for n, x in enumerate(elements) if n]
        body.append(f"{bits} gradient = bits_of_{kind}({self._in_window(g, ())});")
        for n, at in reversed(list(enumerate(self._taps()))):
            body.append(f"part[{at} + c] = {kind}_of(gradient & is{n} & ~later); later |= is{n};")
        yield f"{kind} part[{len(self.rows) * self.length}];"
        yield from self._over_windows(body)

    def _selected(self, select: Instruction) -> Iterator[str]:
        """Yield the loops that store the largest elements of windows."""
        kind = c_type(select.output.dtype)
        first, *others = (f"found[{at} + c]" for at in self._taps())
        body = [f"{kind} largest = {first};", *(f"replace_{kind}(&largest, {x});" for x in others)]
        yield from self._over_windows([*body, f"{self._in_window(select.output, ())} = largest;"])

    def _taps(self) -> list[str]:
        """Return where the elements of window ``w`` lie in rows that are kept."""
        step, across = self.window[-1] * self.columns, range(self.window[-1])
        pairs = itertools.product(range(len(self.rows)), across)
        return [f"w * {step} + {n * self.length + t * self.columns}" for n, t in pairs]

    def _in_window(self, value: Value, tap: tuple[int, ...]) -> str:
        """Return an element of window ``w``, or what there is one of for each window."""
        *_, pixel, column = self.strides[value]
        step = pixel if value in self.of_windows else pixel * self.window[-1]
        start = self._start(value, tap or (0,) * len(self.window))
        return f"q{self.number[value]}[{start} + w * {step} + c * {column}]"

    def _over_windows(self, body: Sequence[str]) -> Iterator[str]:
        """Yield the loops over windows and their columns."""
        yield f"{loop('w', 'm')} {{"
        yield "INDEPENDENT"
        if self.columns <= MAX_UNROLLED:
            yield "#pragma GCC unroll 1"
        yield f"{loop('c', str(self.columns))} {{"
        yield from (f"    {line}" for line in body)
        yield "} }"
