"""Following a job until it ends: its log, how far it is, Ctrl-C, and a connection that is lost for a while."""

from __future__ import annotations

import asyncio
import signal
import sys
import threading
import time
from queue import Empty, SimpleQueue
from typing import Any

from sicot.errors import UserError
from sicot.submission.cluster import Away, Cluster, Job
from sicot.submission.screen import Screen

DETACHED = 130
SILENCE = 15.0  # seconds without a word after which the cluster is asked whether it is still there
RETRY = 2.0
PATIENCE = 600.0  # seconds that a cluster may be away
TRIES = 3  # to get the log of a job that has ended


class Interrupted(Exception):
    """Ctrl-C."""


class Follow:
    """Follows one job.

    Args:
        cluster: where it is.
        job_id: which it is.
        screen: where it is shown.
    """

    def __init__(self, cluster: Cluster, job_id: str, screen: Screen):
        self.cluster, self.id, self.screen = cluster, job_id, screen
        self._shown = 0  # characters of the log
        self._events: SimpleQueue[Any] = SimpleQueue()  # which a signal handler may put into

    def until_end(self) -> Job | None:
        """Show the log until the job has ended, and give what it ended as; None if the user turned away from it.

        Raises:
            UserError: the cluster has been away for too long, or does not know the job.
        """
        before = signal.signal(signal.SIGINT, self._on_ctrl_c)
        failed = 0
        try:
            while True:
                try:
                    return self._read()
                except Away as away:
                    job = self._wait(away)
                    failed += job.ended
                    if failed == TRIES:  # its node is gone, and the log with it
                        self.screen.say("── the rest of the log cannot be had any more")
                        return job
                except Interrupted:
                    signal.signal(signal.SIGINT, signal.default_int_handler)
                    if not self._goes_on():
                        return None
                    signal.signal(signal.SIGINT, self._on_ctrl_c)
        except (Interrupted, KeyboardInterrupt):  # while it waited for the cluster, or asked
            return None
        finally:
            self.screen.end()
            signal.signal(signal.SIGINT, before)

    def _on_ctrl_c(self, number: int, frame: object) -> None:
        self._events.put(Interrupted())

    def _read(self) -> Job:
        """Show what is new of the log until it ends."""
        lines: SimpleQueue[Any] = SimpleQueue()
        self._events = lines
        threading.Thread(target=lambda: asyncio.run(self._receive(lines)), daemon=True).start()
        received, heard = 0, time.monotonic()
        while True:
            try:
                event = lines.get(timeout=1)
            except Empty:
                self.screen.tick()
                if time.monotonic() - heard > SILENCE:
                    self.cluster.job(self.id)
                    heard = time.monotonic()
                continue
            if event is None:
                break
            if isinstance(event, Exception):
                raise event
            heard, received = time.monotonic(), received + len(event)
            self._show(event[max(0, len(event) - max(0, received - self._shown)) :])
        job = self.cluster.job(self.id)
        if not job.ended:
            raise Away("the log broke off")
        self._show(self.cluster.log(self.id)[self._shown :])
        return job

    async def _receive(self, lines: SimpleQueue[Any]) -> None:
        """Take the log from the cluster, in a thread of its own, so that nothing of it waits for Ctrl-C's question."""
        try:
            async for text in self.cluster.tail(self.id):
                lines.put(text)
            lines.put(None)
        except Exception as error:  # noqa: BLE001  whatever it is, it ends this connection and not the job
            lines.put(Away(" ".join(str(error).split()) or type(error).__name__))

    def _show(self, text: str) -> None:
        if text:
            self._shown += len(text)
            self.screen.log(text)

    def _wait(self, away: Away) -> Job:
        """Wait until the cluster is there again; gives what it then tells of the job."""
        self.screen.say(f"── connection to {self.cluster.address} lost ({away}): trying again")
        began = time.monotonic()
        while True:
            try:
                event = self._events.get(timeout=RETRY)
                if isinstance(event, Interrupted):
                    raise event
            except Empty:
                pass
            try:
                job = self.cluster.job(self.id)
                break
            except Away as error:
                if time.monotonic() - began > PATIENCE:
                    raise UserError(
                        f"{error}; the job may well go on: python -m jobs.submit --attach {self.id}"
                    ) from None
        self.screen.say(f"── connected again after {time.monotonic() - began:.0f} s")
        return job

    def _goes_on(self) -> bool:
        """After Ctrl-C: stop the job and see it end (True), or let it be (False)."""
        self.screen.end()
        if not sys.stdin.isatty():
            return False
        question = "\nCtrl-C: detach and let the job go on, or stop it? [d/s, Enter: keep watching] "
        print(question, end="", file=sys.stderr, flush=True)
        answer = sys.stdin.readline().lower() or "d"
        if answer.startswith("s"):
            self.cluster.stop(self.id)
            self.screen.say("stopping")
        return not answer.startswith("d")


def exit_code(job: Job) -> int:
    """What a process that followed the job ends with: what the job's own ended with, 1 where Ray does not say."""
    if job.state == "SUCCEEDED":
        return 0
    code = job.exit_code or 1
    return code if code > 0 else 128 - code
