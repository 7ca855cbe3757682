"""Training batches from a prepared set, in an order that seed and epoch decide.

The row groups of the split are permuted and laid end to end; each rank owns an equal stretch of that sequence
and shuffles it window by window. So every epoch deals all rows anew, no rank reads more than its share, memory
is bounded by the window whatever the size of the set, and a batch of an epoch can be made again after a crash.

B batch, H height, W width, T words.
"""

from __future__ import annotations

import io
import itertools
import multiprocessing
from collections import Counter, deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from sicot.model.attention import pad
from sicot.prepare.prepared import PreparedSet

WINDOW = 8192  # rows shuffled together


@dataclass(frozen=True)
class Batch:
    """Rows on their way to the model."""

    images_BHW3: Tensor  # uint8
    words_BT: Tensor  # int64, 0 = no word
    labels_B: Tensor  # int64

    def to(self, device: torch.device) -> Batch:
        """The same rows on ``device``."""
        return Batch(*(part.to(device, non_blocking=True) for part in vars(self).values()))

    def __len__(self) -> int:
        return len(self.labels_B)


def collate(rows: pa.Table, max_words: int) -> Batch:
    """Decode rows of a prepared set into a batch."""
    labels_B = torch.from_numpy(rows["label"].to_numpy().astype(np.int64))
    return Batch(decode(rows["image"]), pad(rows["words"].to_pylist(), max_words), labels_B)


def decode(photos: pa.ChunkedArray) -> Tensor:
    """images_BHW3, uint8, of prepared photos."""
    decoded = [np.asarray(Image.open(io.BytesIO(photo.as_buffer())).convert("RGB")) for photo in photos]
    return torch.from_numpy(np.stack(decoded))


class Rows:
    """Random access to the row groups of a split."""

    COLUMNS = ("image", "words", "label")

    def __init__(self, prepared: PreparedSet, split: str):
        self.files = prepared.parquet(split)
        self.groups = [(file, g) for file in self.files for g in range(file.metadata.num_row_groups)]
        self.sizes = np.array([file.metadata.row_group(g).num_rows for file, g in self.groups], dtype=np.int64)

    def __len__(self) -> int:
        return int(self.sizes.sum())

    def read(self, pieces: list[tuple[int, int, int]], columns: tuple[str, ...] = ()) -> pa.Table:
        """Rows low … high of each (row group, low, high), end to end; `COLUMNS` of them, or those named."""
        tables = []
        for group, low, high in pieces:
            file, index = self.groups[group]
            tables.append(file.read_row_group(index, columns=list(columns or self.COLUMNS)).slice(low, high - low))
        return pa.concat_tables(tables)

    def stretch(self, order: np.ndarray, start: int, stop: int) -> list[tuple[int, int, int]]:
        """The pieces that rows start … stop consist of when the groups are laid end to end in ``order``."""
        ends = np.cumsum(self.sizes[order])
        pieces = []
        for position in range(int(np.searchsorted(ends, start, "right")), len(order)):
            begin = int(ends[position] - self.sizes[order[position]])
            if begin >= stop:
                break
            low, high = max(start - begin, 0), min(stop - begin, int(self.sizes[order[position]]))
            pieces.append((int(order[position]), low, high))
        return pieces

    def dealt(
        self, rank: int, world: int, size: int, columns: tuple[str, ...] = (), equally: bool = False
    ) -> Iterator[pa.Table]:
        """The rank's equal share of the rows, in order, ``size`` at a time.

        Shares may differ by a row. With ``equally`` the last table may be empty, so that every rank has as many.
        """
        low, high = len(self) * rank // world, len(self) * (rank + 1) // world
        order = np.arange(len(self.groups))
        for start in range(low, low + -(-len(self) // world) if equally else high, size):
            # a rank without a row left reads an empty piece, for its columns
            yield self.read(self.stretch(order, start, min(start + size, high)) or [(0, 0, 0)], columns)


class TrainingBatches(IterableDataset):
    """The batches of one rank; set ``epoch`` and ``skip`` (batches already done) before each pass."""

    def __init__(self, prepared: PreparedSet, batch_size: int, rank: int, world: int, seed: int, window: int = WINDOW):
        self.prepared, self.rank, self.world, self.seed, self.window = prepared, rank, world, seed, window
        rows = prepared.manifest.rows["train"]
        self.share = rows // world
        # a rank with fewer rows than a batch takes them all as one; the rest of an epoch (less than a batch) waits
        self.batch_size = max(1, min(batch_size, self.share))
        self.epoch = self.skip = self.threads = 0
        self._rows: Rows | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_rows": None}  # open files do not travel; a loader process opens its own

    def __len__(self) -> int:
        """Batches of an epoch, the same for every rank."""
        return max(1, self.share // self.batch_size)

    def __iter__(self) -> Iterator[Batch]:
        max_words = self.prepared.manifest.text.max_words
        slices = itertools.islice(self._slices(), self.skip, None)
        if get_worker_info() is None:
            yield from (collate(rows, max_words) for rows in slices)
            return
        with ThreadPoolExecutor(self.threads) as pool:  # Pillow decodes without holding the interpreter
            waiting: deque[Future[Batch]] = deque()
            for rows in slices:
                waiting.append(pool.submit(collate, rows, max_words))
                if len(waiting) > self.threads:
                    yield waiting.popleft().result()
            yield from (future.result() for future in waiting)

    def _slices(self) -> Iterator[pa.Table]:
        """Undecoded batches, in order. The next window is read while this one is used."""
        rows = self._rows = self._rows or Rows(self.prepared, "train")
        order = np.random.default_rng((self.seed, self.epoch)).permutation(len(rows.groups))
        first = self.rank * self.share
        starts = range(first, first + self.share, self.window)
        stretches = [rows.stretch(order, start, min(start + self.window, first + self.share)) for start in starts]
        left: pa.Table | None = None
        made = 0
        with ThreadPoolExecutor(1) as ahead:
            pending = ahead.submit(rows.read, stretches[0])
            for window in range(len(stretches)):
                table = pending.result()
                if window + 1 < len(stretches):
                    pending = ahead.submit(rows.read, stretches[window + 1])
                shuffle = np.random.default_rng((self.seed, self.epoch, self.rank, window)).permutation(table.num_rows)
                table = table.take(pa.array(shuffle))
                table = table if left is None else pa.concat_tables([left, table])
                whole = table.num_rows // self.batch_size
                for number in range(whole):
                    if made == len(self):
                        return
                    yield table.slice(number * self.batch_size, self.batch_size)
                    made += 1
                left = table.slice(whole * self.batch_size)

    def loader(self, threads: int) -> DataLoader:
        """Iterate in order, decoding with so many threads in a process beside this one (0: in this one)."""
        self.threads = threads
        processes = multiprocessing.get_context("forkserver")
        processes.set_forkserver_preload([__name__])  # a new epoch's process then starts at once
        return DataLoader(
            self,
            batch_size=None,
            num_workers=1 if threads else 0,
            pin_memory=torch.cuda.is_available(),
            prefetch_factor=4 if threads else None,
            generator=torch.Generator(),  # its own: the global one must be the same after a resume
            multiprocessing_context=processes if threads else None,
        )


def evaluation_batches(
    prepared: PreparedSet,
    split: str,
    batch_size: int,
    rank: int,
    world: int,
    most: int | None = None,
    equally: bool = False,
) -> Iterator[Batch]:
    """Every row of the split exactly once over all ranks; ranks may differ by one row and so in their batches.

    With ``most``, only the first so many rows of each class on this rank. With ``equally``, batches may be empty, and
    every rank has as many.
    """
    met: Counter[int] = Counter()
    for table in Rows(prepared, split).dealt(rank, world, batch_size, equally=equally):
        if most is not None:
            keep = []
            for label in table["label"].to_pylist():
                met[label] += 1
                keep.append(met[label] <= most)
            table = table.filter(pa.array(keep))
        if table.num_rows:
            yield collate(table, prepared.manifest.text.max_words)
        elif equally:
            size, words = prepared.manifest.images.size, prepared.manifest.text.max_words
            empty = torch.zeros(0, dtype=torch.int64)
            yield Batch(torch.zeros(0, size, size, 3, dtype=torch.uint8), empty.view(0, words), empty)
