"""Running programs on the CPU: NumPy calls, generated C, BLAS and threads."""
