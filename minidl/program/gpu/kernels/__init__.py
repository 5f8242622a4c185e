"""Generated CUDA kernels, and which steps they serve."""
