"""Random numbers: generators that work for NumPy and CuPy arrays alike."""
