"""Speed of linalgk beside that of its peers, with the error of every answer beside its time.

``pytest bench`` runs the problems of each room under pytest-benchmark, all contenders in one
process: handy while working on one function. ``python -m linalgk bench`` compares fairly, each
contender in a process of its own; see `linalgk_bench.run`. Both read the same problems, peers and
oracles, and write the same JSON format.

A room's file (``matfun.py``) lists its problems and its contenders. To add a benchmark, add an
entry there.
"""
