"""How far a job is, from the very lines that jobs print."""

from __future__ import annotations

import io

import pytest

from sicot.submission.progress import Progress
from sicot.submission.screen import CLEAR, Screen
from sicot.train import progress


def shown(*lines: str, columns: int = 80) -> str:
    it = Progress()
    for line in lines:
        it.read(line)
    return it.shown(columns)


def epoch_line(epoch: int, epochs: int, seconds: float) -> str:
    metrics = {"epoch": epoch, "seconds": seconds, "loss/loss": 1.0, "val/image/top1": 0.5, "images_per_s": 90.0}
    return progress.epoch_line(metrics, epochs)


def test_a_finished_epoch_counts_whole_and_tells_the_time_left() -> None:
    line = shown(epoch_line(4, 10, 40.0))
    assert line.endswith(" 40%  epoch 4/10  1:00 left")
    assert line.count("█") * 10 == pytest.approx(4 * (line.count("█") + line.count("░")), abs=5)


def test_a_line_of_a_worker_counts_as_one_of_the_job() -> None:
    worker = "\x1b[36m(RayTrainWorker pid=12, ip=10.0.0.7)\x1b[0m "
    assert shown(worker + epoch_line(1, 2, 3723.0)).endswith(" 50%  epoch 1/2  62:03 left")


def test_steps_count_as_parts_of_an_epoch(capsys: pytest.CaptureFixture[str]) -> None:
    said = progress.lines("", 10, seconds=-1)
    for step in range(1, 31):
        said(3, step, 40)
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1].startswith("epoch 4/10  step 30/40  ")
    assert lines[-1].endswith(" left")
    assert " 38%  epoch 4/10  0:" in shown(lines[-1])


def test_time_left_is_told_from_what_this_process_did_itself(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = 100.0
    monkeypatch.setattr(progress.time, "monotonic", lambda: now)
    said = progress.lines("", 10, seconds=15)
    now = 120.0
    said(8, 1, 2)  # goes on in the ninth epoch of ten: half of one in 20 s, one and a half are left
    assert capsys.readouterr().out == "epoch 9/10  step 1/2  1:00 left\n"


def test_a_search_counts_trials_and_not_their_epochs() -> None:
    ended = "trial  3  finished            objective  45.0%  photo  40.0%  3 of 12, about 4:10 left"
    alive = "  … trial 4 epoch 2/10 45.0%, trial 5 starts"
    assert shown(ended, alive).endswith(" 25%  trial 3/12  4:10 left")


def test_preparing_counts_rows() -> None:
    line = "prepare: photos :  43%|████▎     | 1024/2400 [00:05<00:06, 203.40 rows/s]"
    assert shown(line).endswith(" 43%  prepare photos  0:06 left")


def test_a_step_of_the_pipeline_stays_in_sight() -> None:
    assert shown("── 2/6 train", epoch_line(1, 2, 10.0)).endswith(" 50%  2/6 train  epoch 1/2  0:10 left")
    assert shown(epoch_line(1, 2, 10.0), "── 3/6 evaluate") == "3/6 evaluate"


@pytest.mark.parametrize("line", ["", "bundle: runs/demo (digest 12)", "epoch 1/0  ", "12 of 40 products", "── done"])
def test_other_lines_tell_nothing(line: str) -> None:
    assert shown(line) == ""


@pytest.mark.parametrize("columns", [0, 3, 20, 30, 200])
def test_it_fits_a_narrow_window(columns: int) -> None:
    assert len(shown("── 2/6 train", epoch_line(1, 2, 10.0), columns=columns)) <= max(columns, 0)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_without_a_terminal_the_log_comes_out_as_it_went_in() -> None:
    out = io.StringIO()
    screen = Screen(out)
    parts = ["epoch 1/2  loss", " 0.5  1:00 left\nha", "lf a line\r\n", "no end"]
    for part in parts:
        screen.log(part)
    screen.end()
    assert out.getvalue() == "".join(parts) + "\n"


def test_on_a_terminal_the_bar_stays_below_the_log_and_goes_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "80")
    out = Terminal()
    screen = Screen(out)
    for part in ("hello\nepoch 1/2  loss 0.5  0:00 left\nwor", "ld\nrest"):
        screen.log(part)
    screen.say("── lost")
    screen.end()
    seen: list[str] = [""]
    for piece in out.getvalue().replace(CLEAR, "\0").replace("\n", "\n\1").split("\1"):
        seen.append(piece.rpartition("\0")[2])  # what a line shows once it is left
    lines = [line for line in seen if line]
    assert lines == ["hello\n", "epoch 1/2  loss 0.5  0:00 left\n", "world\n", "── lost\n", "rest\n"]
    assert "50%  epoch 1/2  0:00 left" in out.getvalue()
