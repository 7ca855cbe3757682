"""Real processes that talk over gloo, for tests of what several ranks do together."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

import torch
import torch.distributed as dist

from sicot import ports


class Ranks:
    """Up to ``most`` processes; :meth:`run` has the first of them work as the ranks of one process group."""

    def __init__(self, most: int):
        spawn = multiprocessing.get_context("spawn")
        self.pipes: list[Connection] = []
        self.processes = []
        for _ in range(most):
            here, there = spawn.Pipe()
            self.processes.append(spawn.Process(target=_serve, args=(there,), daemon=True))
            self.processes[-1].start()
            self.pipes.append(here)

    def run(self, world: int, work: Callable[..., Any], *given: Any) -> list[Any]:
        """``work(rank, world, *given)`` of each rank."""
        (port,) = ports.free()
        for rank, pipe in enumerate(self.pipes[:world]):
            pipe.send((rank, world, port, work, given))
        answers = [pipe.recv() for pipe in self.pipes[:world]]
        for answer in answers:
            if isinstance(answer, Exception):
                raise answer
        return answers

    def stop(self) -> None:
        """End the processes."""
        for process in self.processes:
            process.terminate()
            process.join()


def _serve(pipe: Connection) -> None:
    torch.set_num_threads(1)
    while True:
        rank, world, port, work, given = pipe.recv()
        try:
            if world > 1:
                dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=world)
            pipe.send(work(rank, world, *given))
        except Exception as error:  # noqa: BLE001  the test that asked is told
            pipe.send(error)
        finally:
            if dist.is_initialized():
                dist.destroy_process_group()
