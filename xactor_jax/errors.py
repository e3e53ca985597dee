"""Errors that a person at the command line is meant to read."""


class InputError(Exception):
    """Something from outside is unusable; the message names it and says what to do, in one line."""


class NoAccess(InputError):
    """Something from outside could not be reached; it may be there, and usable, the next time."""


class OutOfMemory(InputError):
    """Something from outside took more memory than there was; it may be usable with more."""
