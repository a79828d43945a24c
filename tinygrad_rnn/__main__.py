"""`python -m tinygrad_rnn` is the command `tinygrad-rnn`."""

from __future__ import annotations

import sys

from tinygrad_rnn.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
