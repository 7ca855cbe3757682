"""A million classes: the trained bundle against the nearest class mean of the same network, its index against no index.

    python -m benchmarks.million                     after `make million`, on the test split of runs/million

The nearest class mean answers with the class whose training photos' mean direction is nearest: no classifier at all.
`search` is the part of an answer that looks the classes up, one query at a time on one thread; `recall` the share of
the ten best classes, by exact float32 comparison with all of them, that it finds.

N rows, T words, C classes, K ranked classes, D feature dimension.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from benchmarks import record
from sicot.bundle import Bundle
from sicot.errors import door
from sicot.index import Exam, Rows
from sicot.prepare.prepared import PreparedSet
from sicot.train.loader import Batch, evaluation_batches

BATCH = 512
QUERIES = 500


def main() -> None:
    """Compute the means, ask both, time the search."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.million", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--run", default="runs/million", help="folder of the run: its bundle and its prepared set")
    parser.add_argument("--rows", type=int, default=5000, help="test rows to ask about")
    options = parser.parse_args()
    bundle, prepared = Bundle.load(f"{options.run}/bundle"), PreparedSet.open(f"{options.run}/prepared")
    means = Rows(class_means(bundle, prepared), directions=True)
    asked = list(some(prepared, options.rows))
    labels_N = torch.cat([batch.labels_B for batch in asked])
    v_ND, words_NT = (
        torch.cat([bundle.see(batch.images_BHW3) for batch in asked]),
        torch.cat([b.words_BT for b in asked]),
    )
    rows = [told("nearest class mean", "image", means.nearest(v_ND, 10), labels_N, prepared)]
    for regime, words in (("image", None), ("image_text", words_NT)):
        rows.append(told("bundle", regime, best(bundle, v_ND, words), labels_N, prepared))
        rows.append({"method": "search", "regime": regime, **search(bundle, v_ND, words)})
    record.record("million", rows)


@torch.inference_mode()
def class_means(bundle: Bundle, prepared: PreparedSet) -> Tensor:
    """Mean direction of each class's training photos, [C, D]; a thread a core, each on its own part of the rows."""
    workers = record.cores()
    sums_CD = torch.zeros(len(prepared.classes), bundle.info.model.dimension)
    bar = tqdm(desc="class means", total=prepared.manifest.rows["train"], unit=" photos", mininterval=2.0)

    def work(rank: int) -> list[tuple[Tensor, Tensor]]:
        seen = []
        for batch in evaluation_batches(prepared, "train", BATCH, rank, workers):
            seen.append((batch.labels_B, bundle.see(batch.images_BHW3)))
            bar.update(len(batch))
        return seen

    with bar, ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        for seen in pool.map(work, range(workers)):
            for labels_B, v_BD in seen:
                sums_CD.index_add_(0, labels_B, v_BD)
    return sums_CD


def some(prepared: PreparedSet, rows: int) -> Iterator[Batch]:
    """The first so many test rows: their order is that of a hash."""
    for batch in evaluation_batches(prepared, "test", BATCH, 0, 1):
        if rows <= 0:
            return
        yield batch
        rows -= len(batch)


def best(bundle: Bundle, v_ND: Tensor, words_NT: Tensor | None) -> Tensor:
    """The bundle's ten best classes_NK."""
    parts = zip(v_ND.split(BATCH), words_NT.split(BATCH) if words_NT is not None else [None] * len(v_ND), strict=False)
    return torch.cat([bundle.top(v_BD, words_BT, 10).classes_BK for v_BD, words_BT in parts])


def told(method: str, regime: str, classes_NK: Tensor, labels_N: Tensor, prepared: PreparedSet) -> dict[str, Any]:
    """Accuracy: all, and of each group of classes among the ten best."""
    hit_NK = (classes_NK == labels_N[:, None]).numpy()
    group_N = prepared.classes.group[labels_N.numpy()]
    groups = {f"top10_{name}": float(hit_NK[group_N == name].any(1).mean()) for name in np.unique(group_N)}
    return {
        "method": method,
        "regime": regime,
        "rows": len(labels_N),
        "top1": float(hit_NK[:, 0].mean()),
        "top10": float(hit_NK.any(1).mean()),
        **groups,
    }


@torch.inference_mode()
def search(bundle: Bundle, v_ND: Tensor, words_NT: Tensor | None) -> dict[str, Any]:
    """Time of looking classes up, and the share of the ten best that is found."""
    if bundle.index is None:
        return {}
    x_ND, _ = bundle.model.feature(v_ND[:QUERIES], words_NT[:QUERIES] if words_NT is not None else None)
    recall, times = Exam.set(Rows.of(bundle.model.classifier), x_ND, bundle.info.ranks).ask(bundle.index)
    p50, p95 = np.percentile(times, [50, 95]).tolist()
    return {"rows": len(times), "recall_at_10": recall, "p50_ms": p50, "p95_ms": p95}


if __name__ == "__main__":
    door(main)
