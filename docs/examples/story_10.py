"""Story 10: an optimizer that embeds the kernels: no overhead, own output."""

import numpy as xp  # or cupy, where there is a GPU

import linalgk as lk

layers = lk.testing.spd_matrix(256, 1e4, batch=(64,), dtype="float32")

spec = lk.ArraySpec((64, 256, 256), "float32", xp=xp)
# choice, schedule, workspace, kernels: all now
root = lk.plan(lk.inv_root, spec, 4, assume_a="pos", steps=9, rel_damp=1e-6, on_fail="nan")
print(root.workspace_nbytes, root.explain())
Z = xp.empty(spec.shape, spec.dtype)


def refresh(L):
    root(L, out=Z)  # compares shape, dtype and device and computes: no validation, no allocation
    return root.status  # 0 = fine, per member; read it when you like


status = refresh(layers)
print(status.sum(), "members failed")

mul = lk.plan(
    lk.kron_matmul,
    [lk.ArraySpec((16, 16), "float32", xp=xp)] * 4,
    lk.ArraySpec((256, 16**4), "float32", xp=xp),
    side="right",
)
print(mul.explain())
F = [layers[i, :16, :16] for i in range(4)]
X, Y = xp.ones((256, 16**4), "float32"), xp.empty((256, 16**4), "float32")
mul(F, X, out=Y)
print(mul.workspace_nbytes, "bytes beside Y")
