"""`tr.compile`: write down what a step does to arrays, then repeat that without the step. The way of a call:

step(inputs, targets)                                    compile.py
│  signature of the arguments                            boundary.py
├─ a Program is known for it: replay that                program.py, leaves.py
└─ none is: record a Tape                                tape.py
   │  the leaves that the step can get at                search.py, leaves.py
   │  arrays that notice what is done to them            traced.py, numpy_calls.py, engine.py
   ├─ it is the first tape: keep it
   └─ it is the second: compare the two                  compare.py
      │  passes: leave out what need not be repeated     passes.py, uses.py
      │  memory: give each buffer its place              memory.py
      └─ keep a Program, for the calls to come           program.py
"""

from tinygrad_rnn.compiler.compile import compile as compile
