"""Compiled steps: record a function once, improve the record, replay it at machine speed.

Reading order: program.py (what a record is), recorder.py (how it is made), passes/ (how it is
improved), plan/ (which thread computes what, when, and in which memory), cpu/executor.py and
gpu/executor.py (how it is run), compile.py (what the user calls).

A new operation needs nothing here: the array module computes it. What it costs, how threads share it, and
how it becomes C or CUDA are entries in costs.FLOPS, plan.partition.PARTITIONS, cpu.lowering.LOWERINGS and
gpu.kernels.lowering.LOWERINGS.
"""
