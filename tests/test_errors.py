"""How a job ends: nothing but one line for what the user can mend, a traceback for what is ours."""

from __future__ import annotations

import errno

import pytest

from sicot.errors import UserError, door


def end(error: BaseException, capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    def main() -> None:
        raise error

    with pytest.raises(SystemExit) as stopped:
        door(main)
    return int(stopped.value.code or 0), capsys.readouterr().err


def caused(outer: BaseException, cause: BaseException) -> BaseException:
    outer.__cause__ = cause
    return outer


class TaskError(UserError):
    """As Ray makes them: of the cause's type, with a traceback for a text."""

    def __init__(self, cause: BaseException):
        super().__init__("Traceback:\n  many\n  lines")
        self.cause = cause


@pytest.mark.parametrize(
    "error",
    [
        UserError("no such file: name another"),
        caused(RuntimeError("wrapped"), UserError("no such file: name another")),
        TaskError(UserError("no such file: name another")),
        caused(RuntimeError("wrapped"), TaskError(UserError("no such file: name another"))),
    ],
)
def test_what_the_user_can_mend_is_one_line(error: BaseException, capsys: pytest.CaptureFixture[str]) -> None:
    assert end(error, capsys) == (2, "error: no such file: name another\n")


def test_a_full_disk_is_told_wherever_it_happened(capsys: pytest.CaptureFixture[str]) -> None:
    full = OSError(errno.ENOSPC, "No space left on device", "/data/part")
    for error in (full, TaskError(full), caused(RuntimeError("wrapped"), full)):
        code, said = end(error, capsys)
        assert code == 2
        assert said == "error: the disk is full (/data/part): free some space and run the same command again\n"


def test_a_bug_keeps_its_traceback_even_if_met_while_handling_a_users_mistake(
    capsys: pytest.CaptureFixture[str],
) -> None:
    bug = KeyError("digest")
    bug.__context__ = UserError("no such file")
    code, said = end(bug, capsys)
    assert code == 1
    assert "Traceback" in said
    assert said.endswith("error: KeyError: 'digest'\n")


def test_ctrl_c_ends_quietly(capsys: pytest.CaptureFixture[str]) -> None:
    assert end(KeyboardInterrupt(), capsys) == (130, "")
