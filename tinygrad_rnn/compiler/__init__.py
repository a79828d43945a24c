"""`tr.compile`: write down what a step does to arrays, then repeat that without the step. The way of a call:

step(inputs, targets)                                    compile.py
│  signature of the arguments                            boundary.py
├─ a Recording of it fits what the step may look at now: search.py
│  replay its Program                                    program.py
│  └─ it cannot go on as recorded: bring all back, and   undo.py
│     run the step as it is
└─ none does: record a Tape                              tape.py
   │  tensors, found by use                              found.py
   │  arrays that notice what is done to them            traced.py, numpy_calls.py, engine.py, users.py
   ├─ it is the first tape: keep it
   └─ it is the second: compare the two                  compare.py
      │  passes: leave out what need not be repeated     passes.py, uses.py
      │  memory: give each buffer its place              memory.py
      │  instructions, which run without Python          lower.py
      │  and which threads share                         share.py, cut.py, products.py
      └─ keep a Program, for the calls to come           program.py

On a GPU, with `graph=True`, a step is captured as a CUDA graph instead: graphs.py.
"""

from tinygrad_rnn.compiler.compile import compile as compile
