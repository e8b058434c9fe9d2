"""Story 9, the maintainer of a benchmark suite."""

import json
from timeit import timeit

import numpy as np

import linalgk as lk

for f in lk.functions():
    for m in f.methods:
        for op in f.ops:
            implementations = [(i.backend, i.dtypes) for i in op.implementations]
            print(f.name, m, op.name, implementations, f.gradient, f.status)
    args, kw = f.sample("medium", xp=np, rng=0)  # inputs a test and a bench can both use
    with lk.config_context(backend="reference"):
        t0 = timeit(lambda f=f, args=args, kw=kw: f.function(*args, **kw), number=1)
    e = lk.explain(f.function, *args, **kw)
    row = e.to_dict()  # method, reason, op -> implementation, flops, bytes
    print(json.dumps(row | {"seconds": t0}))
print(json.dumps(lk.show_config(mode="dicts")))  # NumPy's and SciPy's spelling
