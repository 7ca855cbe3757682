"""What one would serve the same bundle with instead, each as its documentation shows.

    python -m benchmarks.serving.rivals uvicorn <bundle> <port> [--eager]
    python -m benchmarks.serving.rivals litserve <bundle> <port> [--eager]

`--eager` answers by PyTorch, not by the bundle's engine. Both use two processes for two cores, with one thread each.
"""

from __future__ import annotations

import argparse
import os
from dataclasses import asdict
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import litserve
import torch
import uvicorn
from fastapi import FastAPI, Request

from sicot.bundle import Bundle, Item, Query

WORKERS = 2
MOST = 16


def load(folder: str, eager: bool) -> Bundle:
    """The bundle, as one process has it."""
    torch.set_num_threads(1)
    bundle = Bundle.load(folder)
    bundle.engine = None if eager else bundle.engine
    return bundle


def app() -> FastAPI:
    """What each of uvicorn's processes builds: FastAPI's way, the model called in the handler."""
    bundle = load(os.environ["BUNDLE"], os.environ["EAGER"] == "1")
    application = FastAPI()

    @application.post("/")
    async def recognize(request: Request) -> dict[str, Any]:
        return asdict(bundle.predict([Query(await request.body())])[0])

    return application


class Api(litserve.LitAPI):
    """LitServe's way: it decodes, batches, answers and encodes."""

    def setup(self, device: str) -> None:
        """In each worker process."""
        self.bundle = load(os.environ["BUNDLE"], os.environ["EAGER"] == "1")

    def decode_request(self, request) -> Item:  # without a type, which LitServe would read: it gives the form
        """Of one request."""
        return self.bundle.encode(Query(request["image"].file.read()))

    def predict(self, items: list[Item]) -> list[dict[str, Any]]:
        """Of a batch."""
        return [asdict(answer) for answer in self.bundle.answer(items)]

    def encode_response(self, answer: dict[str, Any]) -> dict[str, Any]:
        """Of one request."""
        return answer


def main() -> None:
    """Serve until terminated."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("server", choices=["uvicorn", "litserve"])
    parser.add_argument("bundle")
    parser.add_argument("port", type=int)
    parser.add_argument("--eager", action="store_true")
    options = parser.parse_args()
    os.environ.update(BUNDLE=options.bundle, EAGER=str(int(options.eager)))
    if options.server == "uvicorn":
        here = "benchmarks.serving.rivals:app"
        uvicorn.run(here, factory=True, port=options.port, workers=WORKERS, log_level="warning")
        return
    api = Api(max_batch_size=MOST, batch_timeout=0.005, api_path="/")
    server = litserve.LitServer(api, accelerator="cpu", workers_per_device=WORKERS)
    server.run(host="127.0.0.1", port=options.port, log_level="warning", generate_client_file=False)


if __name__ == "__main__":
    main()
