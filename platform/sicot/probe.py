"""Putting test products to a running endpoint, as a shop would, and checking its answers against the bundle's."""

from __future__ import annotations

import time
from typing import Any

import httpx
import numpy as np
from tqdm import tqdm

from sicot.bundle import Bundle, Query
from sicot.client import Client, Refused
from sicot.errors import UserError
from sicot.prepare.prepared import PreparedSet

LONGEST_TITLE = 2000  # characters an endpoint takes


def ask(url: str, folder: str, prepared: PreparedSet, rows: int) -> dict[str, Any]:
    """Ask about the first test rows with their words, one request after another.

    Returns:
        ``requests``, the share that ``agree`` with the bundle's own first answer, ``p50_ms`` and ``p95_ms`` of
        the whole request, the ``url``, and the first answer as an ``example``.

    Raises:
        UserError: the endpoint does not answer, or refuses a request.
    """
    bundle = Bundle.load(folder)
    questions = _questions(prepared, rows)
    agree, milliseconds, example = 0, [], None
    with Client(url) as client:
        for photo, words in tqdm(questions, desc="asking the endpoint", unit=" requests"):
            begun = time.perf_counter()
            try:
                answer = client.recognize(photo, words)
            except (httpx.TransportError, Refused) as error:
                raise UserError(f"the endpoint at {url} does not answer: {error}") from error
            milliseconds.append(1000 * (time.perf_counter() - begun))
            example = example or {"title": words, **answer.model_dump(include={"words", "ranked", "model"})}
            agree += answer.ranked[0].label == bundle.predict([Query(photo, words)], 1)[0].ranked[0].label
    return {
        "requests": len(questions),
        "agree": agree / len(questions),
        "p50_ms": round(float(np.percentile(milliseconds, 50)), 1),
        "p95_ms": round(float(np.percentile(milliseconds, 95)), 1),
        "url": url,
        "example": example,
    }


def _questions(prepared: PreparedSet, rows: int) -> list[tuple[bytes, str]]:
    """Photo and words of test rows."""
    files = [file for file in prepared.parquet("test") if file.metadata.num_rows]
    if not files:
        raise UserError("the test split is empty: there is nothing to ask the endpoint about")
    table = next(files[0].iter_batches(rows, columns=["image", "tokens"]))
    return [(row["image"], " ".join(row["tokens"])[:LONGEST_TITLE]) for row in table.to_pylist()]
