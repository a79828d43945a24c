"""The only second copies of derivatives: kernels for arrays, in the place of a plain definition in ops.

`arrays.py` has the kernels, in calls of NumPy or CuPy. `numba_stages.py` has what is pointwise in them as loops that
numba compiles, each with its `effects` declared; `switch.py` turns these on and off.
"""
