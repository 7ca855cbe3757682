"""Evaluation as one call: rows in, figures and a report out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import ray.data
from ray.data import Dataset

from sicot import config, storage
from sicot.bundle import Bundle
from sicot.catalogue import sources
from sicot.catalogue.schema import SPLITS
from sicot.errors import UserError
from sicot.evaluate import metrics, report
from sicot.evaluate.ask import REGIMES, ask
from sicot.evaluate.metrics import UNKNOWN, Answers
from sicot.prepare.prepared import PreparedSet
from sicot.track import Run

SETTINGS = config.Evaluate()


@dataclass(frozen=True)
class Rows:
    """What a model is asked: a catalogue, or a split of a prepared set."""

    dataset: Dataset
    name: str
    """For people: where the rows are from."""
    labels: pa.Array | None = None
    """Names of the labels where rows hold them as numbers."""


@dataclass(frozen=True)
class Evaluation:
    """What came out."""

    metrics: dict[str, dict[str, Any]]
    """By regime (image, image_text, text): see :func:`sicot.evaluate.metrics.summary`."""
    report: dict[str, Any]
    """All of report.json, `metrics` included."""


def prepared_rows(prepared: PreparedSet, split: str = "test", most: int = 0) -> Rows:
    """A split of a prepared set, or about ``most`` rows of it: it is stored in an order of hashes, so any are alike."""
    some = f"{most:,} rows of the " if 0 < most < prepared.manifest.rows[split] else ""
    return _rows_of(prepared, _files(prepared, split), f"{some}{split} split of {prepared.root}", most)


def catalogue_rows(catalogue: config.Catalogue, split: str | None = None, all_splits: bool = False) -> Rows:
    """The rows of any file in the catalogue's schema, or of a prepared set, its split folders or files.

    Args:
        catalogue: where they are.
        split: only rows of this split. None: all rows that `catalogue` names.
        all_splits: what a prepared set named as a whole and without a split means: all of it, or its test split.
    """
    path = catalogue.path.rstrip("/")
    for root in (path, _parent(path), _parent(_parent(path))):
        inside = path.removeprefix(root).strip("/")
        if root and catalogue.path != "synthetic" and _is_prepared(root):
            prepared = PreparedSet.open(root)
            wanted = split or (None if inside or all_splits else "test")
            if _files(prepared, None, inside):  # else something that stands beside the splits
                name = f"{wanted} split of {path}" if wanted else path
                return _rows_of(prepared, _files(prepared, wanted, inside), name)
    dataset = sources.read(catalogue)
    if split is None:
        return Rows(dataset, catalogue.path)
    only = dataset.map_batches(partial(_of_split, split=split), batch_format="pyarrow", batch_size=None)
    return Rows(only, f"{split} rows of {catalogue.path}")


def evaluate(
    bundle_folder: str, rows: Rows, out: str, settings: config.Evaluate = SETTINGS, run: Run | None = None
) -> Evaluation:
    """Measure a bundle on labelled rows and write the report.

    Args:
        bundle_folder: local folder of the bundle.
        rows: from :func:`prepared_rows` or :func:`catalogue_rows`; rows without a label are left out.
        out: folder or URI for the report; replaced if it is there.
        settings: batch size and bins.
        run: MLflow run that gets the figures and the report.

    Raises :class:`UserError` if no row has a label.
    """
    bundle = Bundle.load(bundle_folder)
    asked = ask(bundle_folder, rows.dataset, k=10, batch_size=settings.batch_size)
    table = _labelled(asked, rows)
    target = _target(table, bundle)
    answers = {
        regime: Answers(target[there], *_told(table, regime, there))
        for regime in REGIMES
        if regime in table.column_names and (there := _answered(table, regime)).any()
    }
    unanswered = Counter(table["reason"].drop_null().to_pylist())
    facts = {
        "from": rows.name,
        "labelled": table.num_rows,
        "without_label": asked.num_rows - table.num_rows,
        "unanswered": dict(sorted(unanswered.items())),
    }
    content = report.content(bundle, answers, facts, settings.bins)
    report.write(content, out, run)
    if run:
        run.metrics(
            {
                regime: {name: value for name, value in figures.items() if name != "ci95"}
                for regime, figures in content["metrics"].items()
            }
        )
    return Evaluation(content["metrics"], content)


def gate_question(
    rows: Rows, settings: config.Evaluate = SETTINGS
) -> Callable[[Sequence[str]], list[dict[str, dict[str, float | None]]]]:
    """What :func:`sicot.registry.promote` asks candidate and champion: both the same rows, all that have a label.

    A row is tail if any of the bundles asked calls its class so: a class that one of them has dropped still counts.
    A row that a bundle cannot answer, or whose label it does not know, it has wrong.
    """

    def question(folders: Sequence[str]) -> list[dict[str, dict[str, float | None]]]:
        bundles = [Bundle.load(folder) for folder in folders]
        tail = {
            label
            for bundle in bundles
            for label in bundle.classes.named(np.flatnonzero(bundle.classes.group == "tail"))
        }
        return [_gate_figures(bundle, rows, tail, settings) for bundle in bundles]

    return question


def _gate_figures(
    bundle: Bundle, rows: Rows, tail_labels: Collection[str], settings: config.Evaluate
) -> dict[str, dict[str, float | None]]:
    regimes = REGIMES[:2]
    table = _labelled(ask(bundle.folder, rows.dataset, regimes, k=1, batch_size=settings.batch_size), rows)
    target = _target(table, bundle)
    tail = np.array([label in tail_labels for label in table["label"].to_pylist()], bool)
    figures = {}
    for regime in [regime for regime in regimes if regime in table.column_names]:
        correct = np.zeros(table.num_rows, bool)
        there = _answered(table, regime)
        correct[there] = Answers(target[there], *_told(table, regime, there)).correct
        figures[regime] = {"top1": metrics.share(correct)[0], "tail": metrics.share(correct[tail])[0]}
    return figures


def _is_prepared(root: str) -> bool:
    """Whether there is a prepared set's manifest: other programs write files of that name too."""
    if not storage.exists(f"{root}/manifest.json"):
        return False
    try:
        manifest = storage.read_json(f"{root}/manifest.json")
    except ValueError:
        return False
    return isinstance(manifest, dict) and {"version", "digest", "files"} <= manifest.keys()


def _files(prepared: PreparedSet, split: str | None, inside: str = "") -> list[str]:
    """URIs of the split's files, or of all splits'; only those that `inside` names by folder, file or pattern."""
    return [
        f"{prepared.root}/{file}"
        for each in ([split] if split else SPLITS)
        for file in prepared.manifest.files[each]
        if not inside
        or f"{file}/".startswith(f"{inside}/")
        or (inside.count("/") == file.count("/") and fnmatchcase(file, inside))
    ]


def _rows_of(prepared: PreparedSet, uris: list[str], name: str, most: int = 0) -> Rows:
    groups, rows = [], 0
    for uri in uris:
        with _opened(uri) as file:
            for group in range(file.num_row_groups):
                if not most or rows < most:
                    groups.append({"uri": uri, "group": group})
                    rows += file.metadata.row_group(group).num_rows
    if not groups:
        raise UserError(f"{name} has no rows")
    work = ray.data.from_arrow([pa.Table.from_pylist([group]) for group in groups])
    dataset = work.map_batches(_row_group, batch_size=1, batch_format="pyarrow")
    return Rows(dataset, name, prepared.classes.label)


@contextmanager
def _opened(uri: str) -> Iterator[pq.ParquetFile]:
    system, path = storage.open_uri(uri)
    with system.open_input_file(path) as file:
        yield pq.ParquetFile(file)


def _row_group(work: pa.Table) -> pa.Table:
    with _opened(work["uri"][0].as_py()) as file:
        return file.read_row_group(work["group"][0].as_py(), columns=["id", "image", "label", "tokens"])


def _of_split(part: pa.Table, split: str) -> pa.Table:
    return part.filter(pc.fill_null(pc.equal(part["split"], split), False))


def _parent(folder: str) -> str:
    parent = folder.rpartition("/")[0]
    return "" if parent.endswith(":/") else parent


def _labelled(table: pa.Table, rows: Rows) -> pa.Table:
    """Rows that have a label, as a stripped string."""
    if not table.num_rows:
        raise UserError(f"{rows.name} has no rows")
    labels = table["label"]
    if rows.labels is not None:
        labels = pa.chunked_array([rows.labels.take(labels.combine_chunks())])
    labels = pc.utf8_trim_whitespace(labels.cast(pa.string()))
    table = table.set_column(table.schema.get_field_index("label"), "label", labels)
    has = pc.fill_null(pc.not_equal(labels, ""), False)
    kept = table.filter(has)
    if not kept.num_rows:
        raise UserError(f"no row of {rows.name} has a label: evaluation needs one (catalogue.columns.label names it)")
    return kept


def _target(table: pa.Table, bundle: Bundle) -> np.ndarray:
    """Class index of each row's label, int [N]; `UNKNOWN` where the bundle does not have it."""
    found = pc.index_in(table["label"], value_set=bundle.classes.label)
    return pc.fill_null(found, UNKNOWN).to_numpy().astype(np.int64)


def _answered(table: pa.Table, regime: str) -> np.ndarray:
    return pc.is_valid(table[regime]).to_numpy()


def _told(table: pa.Table, regime: str, there: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Classes and probabilities of the answered rows, [N, K] each, and whether they are refused, [N]."""
    answered = table.filter(pa.array(there))
    columns = (answered[name] for name in (regime, f"{regime}_probability"))
    top, probability = (pc.list_flatten(column).to_numpy().reshape(answered.num_rows, -1) for column in columns)
    return top, probability, answered[f"{regime}_refused"].to_numpy()
