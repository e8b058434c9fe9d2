"""Numba kernels and LAPACK calls over contiguous NumPy arrays; arguments are checked already."""
