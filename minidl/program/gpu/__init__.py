"""Running programs on NVIDIA GPUs: CUDA graphs of generated kernels and cuBLAS."""
