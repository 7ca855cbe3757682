"""Looking classes up: those whose rows have the greatest inner product with a feature, without asking every row.

An index proposes candidates, and what they score is then computed from the classifier's own rows: an index can miss a
class, but never misjudges one. Three kinds are tried, and the choice is by measurement:

    half    every row, in half precision
    int8    every row, in 8 bits a number
    lists   rows in 8 bits, dealt to lists by k-means, of which the nearest few are looked at (`probes`)

Rows that are not normalised (linear) are compared as they are: it is the inner product that is asked for.

B batch, N queries, C classes, K classes found for each query, M rows of a block, D feature dimension.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import faiss
import torch
from torch import Tensor
from torch.nn import functional

from sicot.model.classifier import Classifier
from sicot.model.nearest import nearest

FILE = "index.faiss"
BEST = 10
"""Recall is the share of so many best classes of each query that are found."""
QUERIES = 256
"""Queries that are measured at most: 2560 classes to find tell a recall of 0.99 to about 0.002."""
BLOCK = 65_536  # rows held in float32 at a time
LISTS, PER_LIST = 4096, 39  # most lists, and rows of each that k-means looks at


@dataclass(frozen=True)
class Rows:
    """The rows that are looked up; ``weight_CD`` may lie in a file that is mapped into memory."""

    weight_CD: Tensor
    directions: bool
    """Rows are normalised when they are taken, as the cosine classifier does."""

    @classmethod
    def of(cls, classifier: Classifier) -> Rows:
        """Those of a classifier."""
        return cls(classifier.weight.detach(), classifier.kind == "cosine")

    def cpu(self) -> Rows:
        """The same, in the processor's memory."""
        return Rows(self.weight_CD.cpu(), self.directions)

    def __len__(self) -> int:
        return len(self.weight_CD)

    def __getitem__(self, which: slice | Tensor) -> Tensor:
        """Rows [..., D], float32."""
        rows = self.weight_CD[which].float()
        return functional.normalize(rows, dim=-1) if self.directions else rows

    def spread(self, count: int) -> Tensor:
        """So many rows, evenly from all of them."""
        return self[torch.linspace(0, len(self) - 1, min(count, len(self))).long()]

    def scores(self, x_BD: Tensor, classes_BK: Tensor) -> Tensor:
        """Exact inner products s_BK with the rows of some classes, float32."""
        return torch.einsum("bd,bkd->bk", x_BD.float(), self[classes_BK])

    def nearest(self, x_ND: Tensor, k: int) -> Tensor:
        """Exactly the best classes_NK of all, by asking every row, block by block."""
        return nearest(x_ND, (self[start : start + BLOCK] for start in range(0, len(self), BLOCK)), k)[1]


@dataclass(frozen=True)
class Index:
    """An index over the rows of all classes; ``about`` is what was measured of it, see :func:`build`."""

    found: Any
    about: dict[str, Any]

    @classmethod
    def read(cls, path: Path, about: dict[str, Any]) -> Index:
        """What :meth:`write` wrote. Raises RuntimeError if faiss cannot read the file; nothing in it is executed."""
        return cls(faiss.read_index(str(path)), about)

    def write(self, path: Path) -> None:
        """One file."""
        faiss.write_index(self.found, str(path))

    def __len__(self) -> int:
        return self.found.ntotal

    def candidates(self, x_BD: Tensor) -> Tensor:
        """The candidates for each feature, classes_BK on its device; all classes where there are no more than that."""
        # a new thread starts with OpenMP's own default, whatever torch was told
        faiss.omp_set_num_threads(torch.get_num_threads())
        x, k, probes = x_BD.cpu().float().numpy(), min(self.about["candidates"], len(self)), self.about["probes"]
        _, classes = self.found.search(x, k)
        while probes < self.about["lists"] and (short := (classes < 0).any(1)).any():  # lists held fewer than k rows
            probes *= 2
            further: Any = faiss.SearchParametersIVF()
            further.nprobe = probes
            _, classes[short] = self.found.search(x[short], k, params=further)
        return torch.from_numpy(classes).to(x_BD.device)


def build(rows: Rows, queries_ND: Tensor | None, candidates: int = 200, recall: float = 0.99) -> Index:
    """The fastest index that reaches ``recall``; the one with most recall if none does.

    Memory: beside the rows, one block of them in float32 and two indexes. 1 M x 64 rows take half a minute on 2 cores.

    Args:
        rows: of the classes.
        queries_ND: features like those that will be asked, spread over all ways of asking; at most `QUERIES` of them
            are used. None or empty: the rows themselves are asked.
        candidates: classes fetched from the index.
        recall: share of the `BEST` best classes by float32 that must be among the candidates.

    Returns:
        The index. Its `about`, JSON-able: kind, lists and probes (0 where there are none), candidates, recall, ms (of a
        single query in one thread, exact scores of the candidates included), exact_ms (the same by asking every row in
        float32), megabytes, and seconds (of building all kinds and choosing).
    """
    begun = time.perf_counter()
    faiss.omp_set_num_threads(torch.get_num_threads())
    asked = Rows(queries_ND.detach().cpu().float(), False) if queries_ND is not None and len(queries_ND) else rows
    exam = Exam.set(rows, asked.spread(QUERIES), candidates)
    best = choose(kinds(rows, exam, recall), recall)
    best.about.update(exact_ms=exam.exact_ms, seconds=round(time.perf_counter() - begun, 1))
    return best


def choose(found: Iterable[Index], recall: float) -> Index:
    """Of those that reach the recall the fastest, else the one that comes nearest."""
    return max(found, key=lambda each: (min(each.about["recall"], recall), -each.about["ms"]))


def kinds(rows: Rows, exam: Exam, recall: float) -> Iterator[Index]:
    """Every kind of index, measured."""
    for kind, bits in (("half", faiss.ScalarQuantizer.QT_fp16), ("int8", faiss.ScalarQuantizer.QT_8bit)):
        flat = faiss.IndexScalarQuantizer(rows.weight_CD.shape[1], bits, faiss.METRIC_INNER_PRODUCT)
        yield exam.measured(kind, _filled(flat, rows, LISTS * PER_LIST))
    yield _lists(rows, exam, recall)


def _lists(rows: Rows, exam: Exam, recall: float) -> Index:
    """Lists, with as many probes as reach the recall; beyond half of them all rows are as quickly asked."""
    dimension = rows.weight_CD.shape[1]
    lists = max(1, min(LISTS, round(4 * math.sqrt(len(rows))), len(rows) // PER_LIST))
    coarse = faiss.IndexFlatIP(dimension)
    ivf = faiss.IndexIVFScalarQuantizer(
        coarse, dimension, lists, faiss.ScalarQuantizer.QT_8bit, faiss.METRIC_INNER_PRODUCT
    )
    ivf.cp.spherical, ivf.cp.min_points_per_centroid = rows.directions, 1
    _filled(ivf, rows, lists * PER_LIST)
    while True:
        index = exam.measured("lists", ivf, lists)
        if index.about["recall"] >= recall or 4 * ivf.nprobe > lists:
            return index
        ivf.nprobe *= 2


def _filled(index: Any, rows: Rows, sample: int) -> Any:
    """The index, trained on a sample of the rows, with all of them in it."""
    index.train(rows.spread(sample).numpy())
    for start in range(0, len(rows), BLOCK):
        index.add(rows[start : start + BLOCK].numpy())
    return index


@dataclass(frozen=True)
class Exam:
    """Queries, and the classes that should be found for them."""

    rows: Rows
    x_ND: Tensor
    right_NK: Tensor
    candidates: int
    exact_ms: float

    @classmethod
    def set(cls, rows: Rows, x_ND: Tensor, candidates: int) -> Exam:
        """Look for the right answers, and take the time of it for single queries."""
        k = min(BEST, candidates)
        right_NK = rows.nearest(x_ND, k)
        with one_thread():
            exact_ms = median(_ms(lambda x_1D=x_1D: rows.nearest(x_1D, k)) for x_1D in x_ND[:5].split(1))
        return cls(rows, x_ND, right_NK, candidates, round(exact_ms, 3))

    def measured(self, kind: str, found: Any, lists: int = 0) -> Index:
        """The index with its figures, from one query at a time."""
        probes = found.nprobe if lists else 0
        megabytes = round(len(faiss.serialize_index(found)) / 1e6, 1)
        about = {"kind": kind, "lists": lists, "probes": probes, "candidates": self.candidates}
        index = Index(found, about)
        recall, times = self.ask(index)
        about.update(recall=round(recall, 4), ms=round(median(times), 3), megabytes=megabytes)
        return index

    def ask(self, index: Index) -> tuple[float, list[float]]:
        """The share of the right answers that are found, and the milliseconds of each query, asked one at a time."""
        told: list[Tensor] = []
        with one_thread():
            times = [_ms(lambda x_1D=x_1D: told.append(self._ask(index, x_1D))) for x_1D in self.x_ND.split(1)]
        return float((torch.cat(told)[:, :, None] == self.right_NK[:, None]).any(1).float().mean()), times

    def _ask(self, index: Index, x_1D: Tensor) -> Tensor:
        """The best classes [1, K], as an answer finds them."""
        classes_1K = index.candidates(x_1D)
        best_1K = self.rows.scores(x_1D, classes_1K).topk(self.right_NK.shape[1]).indices
        return classes_1K.gather(1, best_1K)


def _ms(work: Any) -> float:
    begun = time.perf_counter()
    work()
    return (time.perf_counter() - begun) * 1000


@contextmanager
def one_thread() -> Iterator[None]:
    """As in a process that answers."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        faiss.omp_set_num_threads(threads)
