"""Root may write everywhere. After `obey_permissions` it may not, so that tests of permissions hold for root, too."""

from __future__ import annotations

import ctypes
import os
import sys

VERSION = 0x20080522  # of the structures of capget(2), which have two times 32 bits a set
PASSES_BY = 1 << 1 | 1 << 2  # CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH: not to ask what a file permits


def can_obey() -> bool:
    """Whether `obey_permissions` can do what it says: root is kept from what it may by Linux alone."""
    return hasattr(os, "geteuid") and (os.geteuid() != 0 or sys.platform == "linux")


def obey_permissions() -> None:
    """From now on this thread may do with files what their permissions say, for ever. Root stays root, and can import
    and write what is its own and not closed: it may be that nobody else can enter the folder of the tests.
    """
    if os.geteuid() != 0:
        return
    libc = ctypes.CDLL(None, use_errno=True)
    thread = (ctypes.c_uint32 * 2)(VERSION, 0)
    sets = (ctypes.c_uint32 * 6)()  # effective, permitted, inheritable; the lower halves first
    if libc.capget(thread, sets) != 0:
        raise OSError(ctypes.get_errno(), "capget")
    for i in range(3):
        sets[i] &= ~PASSES_BY
    if libc.capset(thread, sets) != 0:
        raise OSError(ctypes.get_errno(), "capset")
