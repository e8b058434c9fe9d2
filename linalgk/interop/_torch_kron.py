"""PyTorch's face of Kronecker products: what `kron_matmul` and `Kron` call."""

from linalgk.interop._torch import is_blind, wants
from linalgk.interop._torch_kron_det import slogdet
from linalgk.interop._torch_kron_product import kron_matmul, matmul
from linalgk.interop._torch_kron_solve import solve

__all__ = ["is_blind", "kron_matmul", "matmul", "slogdet", "solve", "wants"]
