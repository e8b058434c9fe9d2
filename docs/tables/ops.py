"""Table of the primitives and their kernels from their records."""

from rst import code, list_table

import linalgk as lk

rows = []
for op in lk.ops():
    first = (op.reference.__doc__ or "").strip().splitlines()[0]
    if op.implementations:
        for kernel in op.implementations:
            where = f"``{kernel.module}.{kernel.symbol}``".replace("linalgk_kernels", "kernels")
            about = [kernel.backend, where, code(kernel.dtypes), kernel.rule]
            rows.append([f"``{op.name}``", first, *about])
    else:
        rows.append([f"``{op.name}``", first, "-", "reference only", "-", "-"])
print(list_table(["op", "", "backend", "kernel", "dtypes", "when"], rows))
