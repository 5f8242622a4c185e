"""Steps as CUDA C++: elementwise groups, copies and reductions, generated for the arrays they work on.

Shapes and strides are written into the code as numbers, so that the compiler turns divisions by them into
multiplications. Whatever is generated computes the same bits in every run: no sum depends on which block
of threads comes first.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from string import Template

import numpy

from minidl.devices import Array
from minidl.primitives import philox
from minidl.program.expressions import Unsupported, expression, number
from minidl.program.program import Instruction, Value

#: Threads of a block, in every kernel.
THREADS = 256

#: Blocks that keep a large GPU busy; more than these only take turns.
MOST_BLOCKS = 2048

#: Blocks into which a reduction is cut, if it is long enough.
REDUCTION_BLOCKS = 512

#: Elements that a thread of a reduction takes at least before there are more blocks.
LEAST_ELEMENTS = 8

_TYPES = {
    "bool": "bool",
    "int8": "signed char",
    "uint8": "unsigned char",
    "int16": "short",
    "uint16": "unsigned short",
    "int32": "int",
    "uint32": "unsigned int",
    "int64": "long long",
    "uint64": "unsigned long long",
    "float16": "__half",
    "float32": "float",
    "float64": "double",
}

#: What a step is told beside its arrays: which block of threads this is, of how many, and which thread in it.
_PLACE = "int block, int blocks, int thread"

#: How the functions of the primitives' expressions are called here: those of CUDA differ in NaN and in types.
_FUNCTIONS = {"max": "larger", "min": "smaller", "abs": "magnitude", "pow": "power"}

HEADER = """\
/* As in NumPy, NaN in either operand comes out. The types of the operands may differ: max(x, 0). */
template <typename A, typename B> __device__ auto larger(A a, B b) -> decltype(a + b) {
    return a != a || a > b ? a : b;
}
template <typename A, typename B> __device__ auto smaller(A a, B b) -> decltype(a + b) {
    return a != a || a < b ? a : b;
}
template <typename A> __device__ A magnitude(A a) { return a < 0 ? -a : a + 0; }  /* -0.0 + 0 is 0.0 */

__device__ inline float power_of(float a, float b) { return pow(a, b); }
__device__ inline double power_of(double a, double b) { return pow(a, b); }
template <typename T> __device__ T power_of(T a, T b) {  /* whole numbers, exactly */
    T result = 1;
    for (; b > 0; b >>= 1, a *= a)
        if (b & 1) result *= a;
    return result;
}
template <typename A, typename B> __device__ auto power(A a, B b) -> decltype(a + b) {
    typedef decltype(a + b) T;
    return power_of(T(a), T(b));
}

template <typename T> __device__ T total(T a, T b) { return a + b; }

/* Combine the values of the threads of each row, in an order that never changes: `distance` threads lie
   between neighbours of a row, `count` (a power of 2) threads are in it, this one is number `r`. */
#define combine(combined, values, value, thread, distance, count, r) \\
    __syncthreads(); \\
    values[thread] = value; \\
    for (int half = count / 2; half > 0; half /= 2) { \\
        __syncthreads(); \\
        if (r < half) values[thread] = combined(values[thread], values[thread + half * distance]); \\
    }
"""


@dataclass(eq=False)
class Kernel:
    """What one step asks of the GPU: C++ for one thread, and the arrays it works on.

    The code sees the arrays as ``a0``, ``a1``, ..., and ``block``, ``blocks`` and ``thread``.
    """

    name: str
    code: str
    arrays: list[Array]
    blocks: int

    def __post_init__(self) -> None:
        self.types = [storage_type(array.dtype) for array in self.arrays]

    def parameters(self, first: int = 0) -> str:
        """Return the arrays as the parameters of a C++ function, numbered from ``first``."""
        return ", ".join(f"{kind} *a{first + i}" for i, kind in enumerate(self.types))


def source(launches: Sequence[Sequence[Kernel]]) -> str:
    """Return the code of all launches; a launch is one or more kernels that do not wait for each other.

    The function of launch i is named by `launch_name(i)`. Equal kernels share their code.
    """
    functions: dict[str, str] = {}
    entries = []
    for number_of_launch, kernels in enumerate(launches):
        first_block = first_array = 0
        parameters, branches = [], []
        for kernel in kernels:
            own = f"{kernel.parameters()}, {_PLACE}"
            name = functions.setdefault(f"({own}) {{\n{kernel.code}}}\n", f"step_{len(functions)}")
            arrays = "".join(f"a{first_array + i}, " for i in range(len(kernel.arrays)))
            place = f"blockIdx.x - {first_block}, {kernel.blocks}, threadIdx.x"
            first_block += kernel.blocks
            branches.append(f"if (blockIdx.x < {first_block}) {name}({arrays}{place});")
            parameters.append(kernel.parameters(first_array))
            first_array += len(kernel.arrays)
        signature = f"{launch_name(number_of_launch)}({', '.join(parameters)})"
        body = "\n    else ".join(branches)
        entries.append(f'extern "C" __global__ void {signature} {{\n    {body}\n}}\n')
    steps = [f"static __device__ void {name}{text}" for text, name in functions.items()]
    needed = [philox.SOURCE] if any("philox(" in step for step in steps) else []
    text = "\n".join([HEADER, *needed, *steps, *entries])
    return ("#include <cuda_fp16.h>\n" if "__half" in text else "") + text


def launch_name(number: int) -> str:
    """Return the name of the CUDA function of a launch."""
    return f"launch_{number}"


# --- elementwise groups ---------------------------------------------------------------------------


def group_kernel(
    members: Sequence[Instruction],
    outputs: Sequence[Value],
    places: dict[Value, Array],
    shape: tuple[int, ...],
) -> Kernel:
    """Return the kernel of an elementwise group: every array is read once and written once.

    ``places`` has the array of every value that is read or written in memory, all of one shape or
    broadcast to it. Constants of one element that are not in it stand in the code as numbers.

    Raises
    ------
    Unsupported
        A member has no expression, or a dtype that CUDA does not have.
    """
    strides = [_strides(array, shape) for array in places.values()]
    index = _index_type(shape, strides)
    positions = [_offset("i", shape, stride) for stride in strides]
    inside = {member.output for member in members}
    names: dict[Value, str] = {}
    before: list[str] = []
    body: list[str] = []
    for i, (value, array) in enumerate(places.items()):
        if value not in inside:
            names[value] = f"v{len(names)}"
            load = _load(f"a{i}[{positions[i]}]", array.dtype)
            # What all elements share is read once, unless it is written too: then there is one element.
            lines = before if positions[i] == "0" and math.prod(shape) > 1 else body
            lines.append(f"{register_type(value.dtype)} {names[value]} = {load};")
    body += _computed(members, names)
    # Stores come last, so that a new state may lie where the old one was read.
    for i, (value, array) in enumerate(places.items()):
        if value in outputs:
            body.append(f"a{i}[{positions[i]}] = {_store(names[value], array.dtype)};")
    size = math.prod(shape)
    lines = [*before, f"{_loop(index, size)} {{", *("    " + line for line in body), "}"]
    code = "".join(f"    {line}\n" for line in lines)
    name = " ".join(member.name for member in members[:4])
    return Kernel(name, code, list(places.values()), min(MOST_BLOCKS, -(-size // THREADS)))


def copy_kernel(target: Array, array: Array) -> Kernel:
    """Return the kernel that writes an array, broadcast and converted, to another."""
    shape = target.shape
    to, of = _strides(target, shape), _strides(array, shape)
    index, size = _index_type(shape, [to, of]), math.prod(shape)
    value = _load(f"a1[{_offset('i', shape, of)}]", array.dtype)
    code = (
        f"    {_loop(index, size)}\n        a0[{_offset('i', shape, to)}] = {_store(value, target.dtype)};\n"
    )
    return Kernel("copy", code, [target, array], min(MOST_BLOCKS, -(-size // THREADS)))


def draw_kernel(name: str, state: Array, place: int, out: Array) -> Kernel:
    """Return the kernel that draws ``"random_uniform"`` or ``"random_normal"`` numbers.

    ``state`` is that of a Philox stream; so many numbers of it as ``place`` says were drawn since it was
    written.
    """
    if out.dtype.name not in philox.TYPES:
        raise Unsupported(out.dtype.name)
    index = _index_type(out.shape, [])
    code = (
        f"    {_loop(index, out.size)}\n"
        f"        draw_{name.removeprefix('random_')}(a0 + i, philox(a1[0], a1[1] + {place} + i));\n"
    )
    return Kernel(name, code, [out, state], min(MOST_BLOCKS, -(-out.size // THREADS)))


def advance_kernel(state: Array, count: int) -> Kernel:
    """Return the kernel that notes in the state of a Philox stream that numbers were drawn."""
    return Kernel("advance", f"    if (thread == 0) a0[1] += {count};\n", [state], 1)


def _loop(index: str, size: int) -> str:
    """Return the loop in which the threads of all blocks go over the elements."""
    step = f"({index}) {THREADS}"
    return f"for ({index} i = block * {step} + thread; i < {size}; i += blocks * {step})"


def _computed(members: Sequence[Instruction], names: dict[Value, str]) -> list[str]:
    """Return the lines that compute the members; ``names`` gets a name for each of their results."""
    lines = []
    for member in members:
        for value in member.inputs:
            if value not in names:
                names[value] = _literal(value)
        written = expression(member, names, register_type, _FUNCTIONS)
        kind = member.output.dtype
        if kind == numpy.float16:  # NumPy rounds after every operation
            written = f"__half2float(__float2half({written}))"
        names[member.output] = f"r{len(names)}"
        lines.append(f"{register_type(kind)} {names[member.output]} = {written};")
    return lines


def is_literal(value: Value) -> bool:
    """Say whether a value is a constant of one element, which stands in the code as a number."""
    return value.kind == "constant" and value.size == 1


def _literal(value: Value) -> str:
    assert is_literal(value), "an input of a group has no place"
    return f"(({register_type(value.dtype)}) {number(value.array.item())})"


# --- reductions -----------------------------------------------------------------------------------


_REDUCTION = """\
    __shared__ $kind values[$threads];
    int r = $r;
    $index k = block % $columns * ($index) $along + $k;
    $index part = block / $columns;
    $index end = (part + 1) * (long long) $length / $parts;
    $kind value = $first;
    if (k < $results)
        for ($index i = part * (long long) $length / $parts + r; i < end; i += $across)
            value = $function(value, $element);
    combine($function, values, value, thread, $distance, $across, r)
"""
_OF_ONE_PART = """\
    if (r == 0 && k < $results) a1[k] = $stored;
"""
_OF_PARTS = """\
    if (r == 0 && k < $results) a2[part * $results + k] = values[thread];
    __threadfence();
    __shared__ bool is_last;
    __syncthreads();
    if (thread == 0) is_last = atomicAdd(a3 + block % $columns, 1) == $parts - 1;
    __syncthreads();
    if (is_last) {
        __threadfence();
        value = $again;
        if (k < $results)
            for (int i = r; i < $parts; i += $across)
                value = $function(value, ((volatile $kind *) a2)[i * ($index) $results + k]);
        combine($function, values, value, thread, $distance, $across, r)
        if (r == 0 && k < $results) a1[k] = $stored;
        if (thread == 0) a3[block % $columns] = 0;
    }
"""


def reduction_kernel(
    name: str, x: Array, axis: tuple[int, ...], out: Array, zeros: Callable[[int, numpy.dtype], Array]
) -> Kernel:
    """Return the kernel of a ``"sum"`` or ``"max"`` over axes, into a contiguous array.

    A block has a rectangle of threads: along what is kept, and across, over what is reduced. Where that
    would leave a large GPU idle, the reduction is cut into parts, one for each block, and the block that is
    done last combines them, always in the same order. ``zeros(count, dtype)`` gives memory for that.
    """
    if x.size == 0 or (name == "max" and x.dtype.kind not in "iuf"):
        raise Unsupported(name)
    strides = [stride // x.dtype.itemsize for stride in x.strides]
    keep = [i for i in range(x.ndim) if i not in axis]
    kept = _merged([x.shape[i] for i in keep], [strides[i] for i in keep])
    reduced = _merged([x.shape[i] for i in axis], [strides[i] for i in axis])
    results, length = math.prod(kept[0]), math.prod(reduced[0])
    if results > 1 and length > 1 and abs(kept[1][-1]) < abs(reduced[1][-1]):
        along, across = 32, THREADS // 32  # neighbours read along what is kept
        k, r, distance = f"thread % {along}", f"thread / {along}", along
    else:
        across = min(THREADS, 1 << (length - 1).bit_length())  # neighbours read along what is reduced
        along = THREADS // across
        k, r, distance = f"thread / {across}", f"thread % {across}", 1
    columns = -(-results // along)
    parts = max(1, min(-(-length // (across * LEAST_ELEMENTS)), REDUCTION_BLOCKS // columns))
    kind = register_type(out.dtype)
    start = "0"
    if name == "max":  # begin with an element of the same row
        start = _load(f"a0[{_offset(f'(k < {results} ? k : 0)', *kept)}]", x.dtype)
    code = Template(_REDUCTION + (_OF_ONE_PART if parts == 1 else _OF_PARTS)).substitute(
        {"kind": kind, "index": _index_type(x.shape, [strides]), "threads": THREADS},
        **{"k": k, "r": r, "along": along, "across": across, "distance": distance},
        **{"results": results, "length": length, "columns": columns, "parts": parts},
        function=f"{'total' if name == 'sum' else 'larger'}<{kind}>",
        first=start,
        again="0" if name == "sum" else "value",
        element=_load(f"a0[{_offset('k', *kept)} + {_offset('i', *reduced)}]", x.dtype),
        stored=_store("values[thread]", out.dtype),
    )
    arrays = [x, out]
    if parts > 1:
        wide = numpy.dtype(numpy.float32 if out.dtype == numpy.float16 else out.dtype)
        arrays += [zeros(parts * results, wide), zeros(columns, numpy.dtype(numpy.int32))]
    return Kernel(name, code, arrays, columns * parts)


# --- types and positions --------------------------------------------------------------------------


def storage_type(dtype: numpy.dtype) -> str:
    """Return the C++ type of an element in memory."""
    if dtype.name not in _TYPES:
        raise Unsupported(dtype.name)
    return _TYPES[dtype.name]


def register_type(dtype: numpy.dtype) -> str:
    """Return the C++ type in which is computed: float16 is widened, as NumPy does."""
    return "float" if dtype == numpy.float16 else storage_type(dtype)


def _load(element: str, dtype: numpy.dtype) -> str:
    return f"__half2float({element})" if dtype == numpy.float16 else element


def _store(value: str, dtype: numpy.dtype) -> str:
    return f"__float2half({value})" if dtype == numpy.float16 else value


def _strides(array: Array, shape: Sequence[int]) -> list[int]:
    """Return the strides of an array broadcast to a shape, in elements."""
    missing = len(shape) - array.ndim
    own = [
        stride // array.dtype.itemsize if length > 1 else 0
        for length, stride in zip(array.shape, array.strides, strict=True)
    ]
    return [0] * missing + own


def _merged(shape: Sequence[int], strides: Sequence[int]) -> tuple[list[int], list[int]]:
    """Return shape and strides with axes of length 1 left out, and axes that follow each other as one."""
    lengths: list[int] = []
    merged: list[int] = []
    for length, stride in zip(shape, strides, strict=True):
        if length == 1:
            continue
        if lengths and merged[-1] == stride * length:
            lengths[-1] *= length
            merged[-1] = stride
        else:
            lengths.append(length)
            merged.append(stride)
    return lengths, merged


def _offset(index: str, shape: Sequence[int], strides: Sequence[int]) -> str:
    """Return where element number ``index`` of a shape, in NumPy's order, lies in memory."""
    lengths, strides = _merged(shape, strides)
    terms, inner = [], math.prod(lengths)
    for axis, (length, stride) in enumerate(zip(lengths, strides, strict=True)):
        inner //= max(length, 1)
        if stride:
            place = index if inner == 1 else f"{index} / {inner}"
            place = place if axis == 0 else f"{place} % {length}"
            place = place if place == index or stride == 1 else f"({place})"
            terms.append(place if stride == 1 else f"{place} * {stride}")
    return " + ".join(terms) or "0"


def _index_type(shape: Sequence[int], strides: Sequence[Sequence[int]]) -> str:
    """Return the type for positions: 32 bits if all of them fit, which is faster."""
    reach = max(
        (sum(abs(s) * n for s, n in zip(stride, shape, strict=False)) for stride in strides), default=0
    )
    return "int" if max(reach, math.prod(shape)) < 2**30 else "long long"
