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


class Clock:
    def __init__(self, monkeypatch: pytest.MonkeyPatch):
        self.now = 100.0
        monkeypatch.setattr(progress.time, "monotonic", lambda: self.now)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Time as the test says it is, for who prints and who reads."""
    return Clock(monkeypatch)


def epoch_line(epoch: int, epochs: int, left: str) -> str:
    return f"epoch {epoch}/{epochs}  loss 1.000  validation: photo 50.0%  90 images/s  {left} left"


def test_training_prints_what_is_read_here(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    said = progress.Lines("", 10)
    clock.now += 14
    said.step(8, 1, 4)  # goes on in the ninth epoch of ten
    assert capsys.readouterr().out == ""
    clock.now += 6
    said.step(8, 2, 4)
    assert capsys.readouterr().out == "epoch 9/10  step 2/4  1:00 left\n"
    clock.now += 10
    said.epoch({"epoch": 9, "loss/loss": 1.0, "val/image/top1": 0.5, "images_per_s": 90.0})
    assert capsys.readouterr().out == epoch_line(9, 10, "0:30") + "\n"


def test_a_finished_epoch_counts_whole_and_tells_the_time_left(clock: Clock) -> None:
    line = shown(epoch_line(4, 10, "1:00"))
    assert line.endswith(" 40%  epoch 4/10  1:00 left")
    assert (line.count("█"), line.count("░")) == (12, 18)


def test_the_time_left_goes_down_by_itself(clock: Clock) -> None:
    it = Progress()
    it.read(epoch_line(4, 10, "1:00"))
    clock.now += 25
    assert it.shown(80).endswith(" 0:35 left")
    clock.now += 60
    assert it.shown(80).endswith(" 0:00 left")


def test_a_line_of_a_worker_counts_as_one_of_the_job(clock: Clock) -> None:
    worker = "\x1b[36m(RayTrainWorker pid=12, ip=10.0.0.7)\x1b[0m "
    assert shown(worker + epoch_line(1, 2, "62:03")).endswith(" 50%  epoch 1/2  62:03 left")


def test_steps_count_as_parts_of_an_epoch(clock: Clock) -> None:
    assert shown("epoch 4/10  step 30/40  1:05 left").endswith(" 38%  epoch 4/10  1:05 left")


def test_a_search_counts_trials_and_not_their_epochs(clock: Clock) -> None:
    ended = "trial  3  finished            objective  45.0%  photo  40.0%  3 of 12, about 4:10 left"
    alive = "  … trial 4 epoch 2/10 45.0%, trial 5 starts"
    assert shown(ended, alive).endswith(" 25%  trial 3/12  4:10 left")


def test_preparing_counts_rows(clock: Clock) -> None:
    line = "prepare: photos :  43%|████▎     | 1024/2400 [00:05<00:06, 203.40 rows/s]"
    assert shown(line).endswith(" 43%  prepare photos  0:06 left")


def test_a_step_of_the_pipeline_stays_in_sight(clock: Clock) -> None:
    assert shown("── 2/6 train", epoch_line(1, 2, "0:10")).endswith(" 50%  2/6 train  epoch 1/2  0:10 left")
    assert shown(epoch_line(1, 2, "0:10"), "── 3/6 evaluate") == "3/6 evaluate"


@pytest.mark.parametrize("line", ["", "bundle: runs/demo (digest 12)", "epoch 1/0  ", "12 of 40 products", "── done"])
def test_other_lines_tell_nothing(line: str) -> None:
    assert shown(line) == ""


@pytest.mark.parametrize("columns", [0, 3, 20, 30, 200])
def test_it_fits_a_narrow_window(columns: int) -> None:
    assert len(shown("── 2/6 train", epoch_line(1, 2, "0:10"), columns=columns)) <= max(columns, 0)


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
