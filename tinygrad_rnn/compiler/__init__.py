"""`tr.compile`: record what a function does to arrays, then repeat that without the function.

`traced.py` has the arrays that notice what is done to them, `tape.py` the list of it, `recording.py` how the list is
run again, and `compiled.py` when it may be.
"""

from tinygrad_rnn.compiler.compile import compile as compile
