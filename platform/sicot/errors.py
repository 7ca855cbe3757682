"""The one error a user can cause, and how a job ends on it: a line that says what and what to do."""

from __future__ import annotations

import errno
import os
import re
import signal
import sys
import traceback
from collections.abc import Callable


class UserError(Exception):
    """Something the user can mend. The message is one line: what is wrong, where, and what to do."""


def mask(text: str) -> str:
    """`text` without the passwords, keys and tokens that URIs in it carry."""
    text = re.sub(r"(://)[^/@\s]+@", r"\1***@", text)
    return re.sub(r"(?i)([?&][^=&\s]*(?:secret|token|key|sig|password|credential)[^=&\s]*=)[^&\s]+", r"\1***", text)


def door(main: Callable[[], None]) -> None:
    """Run a job's ``main``; end the process with 0, or with one line on stderr and 2 (130 on Ctrl-C).

    SIGTERM, which stops a submitted job, ends it like Ctrl-C: what it has open is closed.

    What is not the user's to mend keeps its traceback. ``SICOT_DEBUG=1`` shows it always.
    """
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))  # until Ray puts in one like it
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception as error:  # noqa: BLE001  the last line of defence of a process
        line = _line(error)
        if line is None or os.environ.get("SICOT_DEBUG"):
            traceback.print_exc()
        print(f"error: {line or f'{type(error).__name__}: {error}'}", file=sys.stderr)
        sys.exit(2 if line else 1)


def _line(error: BaseException | None) -> str | None:
    """The line for the user, found anywhere among the causes; None if this is a bug of ours."""
    if error is None:
        return None
    task = getattr(error, "cause", None)  # where Ray keeps the error of a task; its own text is a whole traceback
    if isinstance(task, BaseException):
        return _line(task)
    if isinstance(error, UserError):
        return str(error)
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        return f"the disk is full ({error.filename or error}): free some space and run the same command again"
    # not `__context__`: an error met while a UserError was handled is one of ours
    return _line(error.__cause__)
