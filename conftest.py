"""Packages whose functions have the names of their files are imported before pytest imports such a file by itself, and
puts it in the place of the function: `pytest tinygrad_rnn/explain/ledger.py`.
"""

import tinygrad_rnn.compiler
import tinygrad_rnn.data
import tinygrad_rnn.explain  # noqa: F401 (it is enough that they are imported)
