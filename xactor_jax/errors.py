"""The one error that a person at the command line is meant to read."""


class InputError(Exception):
    """Something from outside is unusable; the message names it and says what to do, in one line."""
