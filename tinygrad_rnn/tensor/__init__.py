"""The autograd core: arrays and derivatives. It knows nothing of layers, files or screens.

Read it in this order: `graph.py` (a node), `mode.py` (when one is made), `op.py` (what an op is),
one file of `ops/` (the derivative table), `sweep.py` (the backward), `functional.py` (derivatives
of functions). The rest is to be looked up.
"""
