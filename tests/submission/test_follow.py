"""Ctrl-C while a job is followed, at the moments that a terminal hardly ever meets."""

from __future__ import annotations

import asyncio
import io
import os
import signal
from collections.abc import AsyncIterator
from typing import cast

import pytest

from sicot.submission import follow
from sicot.submission.cluster import Cluster
from sicot.submission.screen import Screen


class Endless:
    """A cluster whose job says one line and goes on."""

    address = "http://head:8265"

    async def tail(self, _: str) -> AsyncIterator[str]:
        yield "line\n"
        await asyncio.sleep(60)


class Impatient(Screen):
    """Somebody who presses Ctrl-C at the first line, and again before anything is asked."""

    pressed = 0

    def log(self, text: str) -> None:
        self.press()

    def end(self) -> None:
        if self.pressed == 1:
            self.press()

    def press(self) -> None:
        self.pressed += 1
        os.kill(os.getpid(), signal.SIGINT)


@pytest.mark.timeout(30)
def test_ctrl_c_pressed_again_before_the_question_is_there_detaches() -> None:
    def before(*_: object) -> None:  # whoever calls has a handler of his own
        raise AssertionError

    mine = signal.signal(signal.SIGINT, before)
    try:
        screen = Impatient(io.StringIO())
        assert follow.Follow(cast(Cluster, Endless()), "job", screen).until_end() is None
        assert screen.pressed == 2
        assert signal.getsignal(signal.SIGINT) is before
    finally:
        signal.signal(signal.SIGINT, mine)
