"""Putting questions to a bundle, many at once: Ray Data batch inference over any catalogue.

Rows come in the catalogue's schema (photo as bytes or URI, title, tags) or in the prepared set's (photo, tokens).
No row is dropped: one that cannot be answered keeps its id and says why.

B batch, H height, W width, T words, K ranked classes.
"""

from __future__ import annotations

import logging
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import ray
import torch
from ray.data import ActorPoolStrategy, Dataset
from tqdm import tqdm

from sicot import storage
from sicot.bundle import Bundle, Item, Top
from sicot.prepare.images import BadImage
from sicot.prepare.photos import READERS, fetch
from sicot.prepare.text import texts

REGIMES = ("image", "image_text", "text")
"""The ways of asking: photo alone, photo and words, words alone."""

Answerer = Callable[[Bundle, pa.Table], pa.Table]
"""What is done to a batch of rows on a worker."""


@dataclass(frozen=True)
class Unanswerable:
    """Why a row cannot be answered: a reason code (those of :class:`BadImage`), and its detail."""

    reason: str
    detail: str


def ask(
    bundle_folder: str, dataset: Dataset, regimes: Sequence[str] = REGIMES, k: int = 5, batch_size: int = 128
) -> pa.Table:
    """Ask a bundle about every row, in several ways.

    Args:
        bundle_folder: local folder of the bundle.
        dataset: rows as described above.
        regimes: ways of asking; those that the model cannot answer are left out.
        k: ranked classes to keep.
        batch_size: rows per step of the model.

    Returns:
        One row per row, sorted by id: id, label (as it is in `dataset`), reason (why there is no answer by photo, null
        if there is one) and, for each regime, `{regime}` (class indices by falling probability, list<int32> [k]),
        `{regime}_probability` (list<float> [k]) and `{regime}_refused` (bool: "unknown product"). They are null for
        rows without a usable photo, those of `text` for rows without known words. No rows, no columns.
    """
    can = [regime for regime in Bundle.load(bundle_folder).regimes if regime in regimes]
    tables = []
    with progress("ask the model") as bar:
        for table in spread(dataset, bundle_folder, Question(can, k), batch_size):
            tables.append(table)
            bar.update(table.num_rows)
    return pa.concat_tables(tables, promote_options="permissive").sort_by("id") if tables else pa.table({})


@dataclass(frozen=True)
class Question:
    """Answers a batch in every regime; small enough to be collected."""

    regimes: list[str]
    k: int

    def __call__(self, bundle: Bundle, batch: pa.Table) -> pa.Table:
        """The columns that :func:`ask` describes."""
        rows = list(read(bundle, batch))
        reasons = [row.reason if isinstance(row, Unanswerable) else _no_photo(row) for row in rows]
        columns = {"id": batch["id"], "label": batch["label"], "reason": pa.array(reasons, pa.string())}
        best: dict[str, list[Any]] = {regime: [(None, None, None)] * len(rows) for regime in self.regimes}
        for regime, places, top in tops(bundle, rows, self.regimes, self.k):
            for place, classes, p in zip(places, top.classes_BK.tolist(), top.p_BK.tolist(), strict=True):
                # in this regime, but a photo without known words is asked alone
                row = rows[place]
                asked = bundle.regime(row) if regime == "image_text" and isinstance(row, Item) else regime
                best[regime][place] = (classes, p, p[0] < bundle.info.threshold[asked])
        for regime, answers in best.items():
            classes, p, refused = zip(*answers, strict=True)
            columns[regime] = pa.array(classes, pa.list_(pa.int32()))
            columns[f"{regime}_probability"] = pa.array(p, pa.list_(pa.float32()))
            columns[f"{regime}_refused"] = pa.array(refused, pa.bool_())
        return pa.table(columns)


@torch.inference_mode()
def tops(
    bundle: Bundle, rows: Sequence[Item | Unanswerable], regimes: Sequence[str], k: int
) -> Iterator[tuple[str, list[int], Top]]:
    """For each regime: its name, the places of the rows that it can answer, and their k best classes.

    What :meth:`Bundle.answer` says, but a photo goes through the trunk once for all regimes.
    """
    items = {place: row for place, row in enumerate(rows) if isinstance(row, Item)}
    photos = {place: item.image_HW3 for place, item in items.items() if item.image_HW3 is not None}
    if photos:
        v_BD = bundle.see(torch.from_numpy(np.stack(list(photos.values()))))
        if "image" in regimes:
            yield "image", list(photos), bundle.top(v_BD, None, k)
        if "image_text" in regimes:
            words_BT = bundle.pad([items[place].words for place in photos])
            yield "image_text", list(photos), bundle.top(v_BD, words_BT, k)
    worded = [place for place, item in items.items() if any(item.words)]
    if worded and "text" in regimes:
        yield "text", worded, bundle.top(None, bundle.pad([items[place].words for place in worded]), k)


# ---------------------------------------------------------------- rows


def read(bundle: Bundle, batch: pa.Table) -> Iterator[Item | Unanswerable]:
    """Decode the photos and look the words up, row for row."""
    with ThreadPoolExecutor(READERS) as readers:
        photos = readers.map(lambda row: _photo(bundle, *row), _photos(batch))
        for photo, (tokens, ids) in zip(photos, _words(bundle, batch), strict=True):
            if isinstance(photo, BadImage):
                yield Unanswerable(photo.reason, str(photo))
            elif photo is None and not (any(ids) and bundle.info.model.uses_words):
                yield Unanswerable("no_image", "there is no photo, and no word that the model knows")
            else:
                yield Item(photo, tokens, ids)


def _photos(batch: pa.Table) -> Iterator[tuple[bytes | None, str | None, str | None]]:
    """Bytes, URI and name of each row's photo."""
    columns = (texts(batch[name]) if name in batch.column_names else None for name in ("image_uri", "image_name"))
    uris, names = (column or [None] * batch.num_rows for column in columns)
    return zip((value.as_py() for value in batch["image"]), uris, names, strict=True)


def _photo(bundle: Bundle, image: bytes | None, uri: str | None, name: str | None) -> np.ndarray | BadImage | None:
    """The decoded photo, None if the row has none, or what is wrong with it."""
    try:
        photo = fetch(image, uri, name, bundle.info.images.max_bytes)
        return bundle.decode(photo) if photo is not None else None
    except BadImage as error:
        return error


def _words(bundle: Bundle, batch: pa.Table) -> Iterator[tuple[list[str], list[int]]]:
    """Words of each row and their ids."""
    if "tokens" in batch.column_names:  # prepared, maybe for another vocabulary and length
        for tokens in batch["tokens"].to_pylist():
            kept = (tokens or [])[: bundle.info.text.max_words]
            yield kept, bundle.vocabulary.ids(kept)
        return
    for title, tags in zip(texts(batch["title"]), batch["tags"], strict=True):
        yield bundle.read(title or "", [tag for tag in texts(tags.values) if tag] if tags.is_valid else [])


def _no_photo(row: Item) -> str | None:
    return "no_image" if row.image_HW3 is None else None


# ---------------------------------------------------------------- workers


def spread(dataset: Dataset, bundle_folder: str, answer: Answerer, rows: int) -> Iterator[pa.Table]:
    """`answer(bundle, part)` for all parts of about `rows` rows, as they are done.

    Each part is one task: a CPU and a thread, or a GPU. Tasks keep the bundle in their worker process, and unlike a
    pool of actors they never hold the CPU that the reading of the rows needs.
    """
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)  # there is a progress line, errors reach the caller
    shipped = ship(bundle_folder)
    gpus = int(ray.cluster_resources().get("GPU", 0))
    parts = dataset.repartition(target_num_rows_per_block=rows, strict=True)
    parts.context.enable_progress_bars = False
    parts.context.print_on_execution_start = False
    whole: dict[str, Any] = {"batch_size": None, "batch_format": "pyarrow"}
    if gpus:
        pool = ActorPoolStrategy(size=gpus)
        done = parts.map_batches(_OnGpu, fn_constructor_args=(shipped, answer), num_gpus=1, compute=pool, **whole)
    else:
        done = parts.map_batches(partial(_on_cpu, shipped=shipped, answer=answer), num_cpus=1, **whole)
    tables: Any = done.iter_batches(batch_size=None, batch_format="pyarrow")
    yield from (table for table in tables if table.num_rows)


def progress(what: str) -> tqdm:
    """A line that counts rows."""
    seldom = 0.5 if sys.stderr.isatty() else 5.0  # a log file wants fewer lines than a terminal
    return tqdm(desc=what, unit=" rows", mininterval=seldom)


@dataclass(frozen=True)
class Shipped:
    """A bundle on its way to workers: its folder, and its files' bytes for nodes that do not see the folder."""

    folder: str
    digest: str
    files: ray.ObjectRef | None = field(compare=False, default=None)


def ship(folder: str) -> Shipped:
    """Make the bundle in a local folder reachable for every node of the cluster."""
    digest = storage.read_json(f"{folder}/bundle.json")["digest"]
    if sum(node["Alive"] for node in ray.nodes()) < 2:
        return Shipped(folder, digest)
    files = {path.name: path.read_bytes() for path in Path(folder).iterdir() if path.is_file()}
    return Shipped(folder, digest, ray.put(files))


@cache
def unpack(shipped: Shipped) -> Bundle:
    """The bundle, loaded once per worker process."""
    torch.set_num_threads(1)
    note = f"{shipped.folder}/bundle.json"
    if shipped.files is None or (storage.exists(note) and storage.read_json(note)["digest"] == shipped.digest):
        return Bundle.load(shipped.folder)
    with tempfile.TemporaryDirectory() as folder:
        for name, content in ray.get(shipped.files).items():
            (Path(folder) / name).write_bytes(content)
        return Bundle.load(folder)


def _on_cpu(batch: pa.Table, shipped: Shipped, answer: Answerer) -> pa.Table:
    return answer(unpack(shipped), batch)


class _OnGpu:
    def __init__(self, shipped: Shipped, answer: Answerer):
        self.bundle, self.answer = unpack(shipped).to("cuda"), answer

    def __call__(self, batch: pa.Table) -> pa.Table:
        return self.answer(self.bundle, batch)
