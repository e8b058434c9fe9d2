"""Largest orders of the fused root kernel by what a block's shared memory holds."""

from linalgk_kernels.cuda import matfun_roots
from rst import list_table

rows = []
for kilobytes, devices in ((227, "sm_90, sm_100"), (163, "sm_80"), (99, "sm_120")):
    real = [matfun_roots.largest_order(kilobytes * 1024, size) for size in (4, 8)]
    # a complex matrix travels as a real one of twice the order
    orders = [*real, *(n // 2 for n in real)]
    rows.append([f"{kilobytes} KB ({devices})", *map(str, orders)])
header = ["shared memory of a block", "float32", "float64", "complex64", "complex128"]
print(list_table(header, rows))
