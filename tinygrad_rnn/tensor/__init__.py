"""The autograd core: arrays and derivatives. It knows nothing of layers, files or screens.

Read it in this order: `op.py` (what an op is), `ops/` (the derivative table), `graph.py` (the backward sweep),
`tensor.py` (what users hold), `functional.py` (derivatives of functions), `fused.py` (kernels beside what
they mean), `backend.py` (NumPy, CuPy and others).
"""
