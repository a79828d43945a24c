"""What the test kit raises: every failure names the law that was broken."""

from __future__ import annotations

__all__ = ["Broken", "GradientError", "KinkError", "LawError"]


class LawError(AssertionError):
    """A law that an op, a module or a recurrent layer breaks; `law` is its name, "linear" or "causality".

    >>> LawError("causality", "output[0] changed with x[3]").law
    'causality'
    """

    def __init__(self, law: str, message: str) -> None:
        super().__init__(message)
        self.law = law


class GradientError(LawError):
    """A derivative that disagrees with the function; the message says where, and by how much. `rough`: the function
    bends so much that the difference it was compared with is rough.
    """

    def __init__(self, message: str, law: str = "gradient", rough: bool = False) -> None:
        super().__init__(law, message)
        self.rough = rough


class KinkError(GradientError):
    """An input at a kink, a jump or a pole of the function, where there is no derivative to check."""

    def __init__(self, message: str) -> None:
        super().__init__(message, "kink")


class Broken(Exception):
    """What a law raises where it is broken: the judge makes a LawError of it. `law` names another law than the one
    that was asked, where that says better what is wrong.
    """

    def __init__(self, message: str, law: str = "") -> None:
        super().__init__(message)
        self.law = law
