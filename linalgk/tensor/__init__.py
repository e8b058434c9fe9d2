"""Tucker and Chebyshev-Tucker formats: tensors and functions to a certified tolerance."""
