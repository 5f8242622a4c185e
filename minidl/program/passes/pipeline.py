"""All passes, in the order in which they help each other."""

from __future__ import annotations

from minidl.program.passes.buckets import send_in_buckets
from minidl.program.passes.expand import expand_reductions
from minidl.program.passes.group import group_elementwise
from minidl.program.passes.matrices import work_on_matrices
from minidl.program.passes.picks import compare_picks
from minidl.program.passes.precision import pack_factors
from minidl.program.passes.products import merge_products
from minidl.program.passes.rows import fuse_rows
from minidl.program.passes.scatter import add_to_sums, order_scatters
from minidl.program.passes.simplify import (
    accumulate_products,
    broadcast_in_place,
    drop_aliases,
    drop_dead,
    drop_idle_casts,
    fold_constants,
    merge_equal,
    negate_sums,
    protect_old_state,
    transpose_products,
)
from minidl.program.passes.slices import join_slices, slice_first
from minidl.program.passes.windows import view_windows
from minidl.program.program import Program

#: Single instructions come first, then those that make larger steps of them.
PASSES = (
    expand_reductions,
    compare_picks,
    drop_aliases,
    fold_constants,
    drop_idle_casts,
    join_slices,
    broadcast_in_place,
    work_on_matrices,
    negate_sums,
    merge_equal,
    drop_dead,
    transpose_products,
    protect_old_state,
    accumulate_products,
    merge_products,
    slice_first,
    add_to_sums,
    send_in_buckets,
    group_elementwise,
    fuse_rows,
)

#: The same for a GPU.
GPU_PASSES = (
    *PASSES[:2],
    order_scatters,
    *(improve for improve in PASSES[2:-2] if improve is not add_to_sums),
    pack_factors,
    *PASSES[-2:],
    view_windows,
)


def optimize(program: Program, on_gpu: bool = False) -> Program:
    """Return the program after all passes."""
    for improve in GPU_PASSES if on_gpu else PASSES:
        program = improve(program)
    return program
