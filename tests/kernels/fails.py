"""A module whose `main` fails, as a compiler may."""


def main(name: str) -> None:
    raise KeyError(name)
