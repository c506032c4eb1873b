"""Every error this package raises on purpose.

    SmartSplatError                      1  a fault of ours, unless a subclass says otherwise
    ├── UsageError        (ValueError)   2  a setting that cannot be meant
    │   └── OutputExistsError (FileExistsError)  an output in the way, and no leave to replace it
    ├── BadInputError     (ValueError)   3  something about the input
    │   ├── SourceError                     an image that cannot be read, or is of a kind not supported
    │   └── SplatFileError                  a .ssplat file that is damaged, cut short or too new
    ├── CapacityError                    4  does not fit
    │   ├── MemoryLimitError (MemoryError)  no plan keeps to the memory limit
    │   └── DiskFullError (OSError)         the disk of the output or of the working copy is full
    ├── MissingDependencyError (ImportError) 2  an optional package or a compiler is needed and not there
    └── ClusterLostError                 5  the dask scheduler, or all that a task needs, is gone

    Interrupted    (KeyboardInterrupt)   5  a signal ended a run that can be resumed

The number is the exit code of the command line. A message is one line that names the file, the value and the
limit; ``hint`` is the way out.
"""

from __future__ import annotations


class SmartSplatError(Exception):
    """Base of all errors raised on purpose; ``str()`` is one line, ``hint`` says what to do about it."""

    exit_code = 1

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return self.message

    def __reduce__(self) -> tuple[object, ...]:
        # The default pickles positional arguments only and would lose the hint on its way back from a worker.
        return (_rebuild, (type(self), self.message, self.hint))


def _rebuild(kind: type[SmartSplatError], message: str, hint: str | None) -> SmartSplatError:
    return kind(message, hint=hint)


class UsageError(SmartSplatError, ValueError):
    """A setting that cannot be meant."""

    exit_code = 2


class OutputExistsError(UsageError, FileExistsError):
    """An output that exists, without leave to replace it."""


class MissingDependencyError(SmartSplatError, ImportError):
    """An optional package, or a compiler, is needed and not there."""

    exit_code = 2


class BadInputError(SmartSplatError, ValueError):
    """Something about the input."""

    exit_code = 3


class SourceError(BadInputError):
    """An image that cannot be read, or is of a kind that is not supported."""


class SplatFileError(BadInputError):
    """A ``.ssplat`` file that is damaged, cut short, or of a newer version."""


class Interrupted(KeyboardInterrupt):
    """Ctrl-C or SIGTERM ended a run whose state is saved; like every interrupt it is no ``Exception``."""

    exit_code = 5

    def __init__(self, message: str, *, hint: str) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class ClusterLostError(SmartSplatError):
    """The dask cluster that a run was given has gone away under it."""

    exit_code = 5


class CapacityError(SmartSplatError):
    """Does not fit in memory or on disk."""

    exit_code = 4


class MemoryLimitError(CapacityError, MemoryError):
    """No plan keeps to the memory limit."""


class DiskFullError(CapacityError, OSError):
    """The disk of the output, or of the working copy, is full, or has too little room for it."""
