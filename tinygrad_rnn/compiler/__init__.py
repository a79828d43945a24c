"""`tr.compile`: record what a step does to arrays, then repeat that without the step. A call goes one way:

    call ── signature of its arguments ──┬── known twice ── replay its Program
                                         └── else: record a Tape ── compare with the one before ── passes ── memory
                                                                                          └── a Program for next time

- `compile.py`: when a step is recorded, and when its recording is repeated.
- `boundary.py`: the signature of arguments, their traced copies, the copies of results.
- `search.py`: which leaves and modules a step can get at; `leaves.py`: the buffers that stand for leaves.
- `traced.py`: the arrays that notice what is done to them.
- `tape.py`: what was done to them; `numpy_calls.py`: as which calls; `compare.py`: whether twice the same.
- `passes.py`: what need not be repeated; `uses.py`: which memory an entry reads and writes.
- `memory.py`: where the buffers lie.
- `program.py`: how the calls are run again.
"""

from tinygrad_rnn.compiler.compile import compile as compile
