"""New products without training: another bundle, that also knows them.

A bundle is never changed in place: what is made here has a digest of its own and, by :func:`save`, a folder of its own.
What was given for a product stays with the bundle, so that :func:`carry` can take it to the next trained model.

D feature dimension.
"""

from __future__ import annotations

import hashlib
import logging
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from sicot import bundle, enrolled, storage
from sicot.bundle import Bundle, Query
from sicot.enrolled import Enrolled
from sicot.errors import UserError
from sicot.model.imprint import PER_CLASS, mean_direction
from sicot.prepare import images
from sicot.prepare.photos import fetch
from sicot.prepare.text import texts

if TYPE_CHECKING:
    from ray.data import Dataset


class Conflict(UserError):
    """The model stands against it, whatever is given."""


class Absent(UserError):
    """There is no such enrolled product."""


def enrol(base: Bundle, products: Mapping[str, Sequence[Query]]) -> Bundle:
    """A bundle that also knows these products, each by a few photos, words, or both.

    A product that was enrolled before is known by what is given now. Of each, `PER_CLASS` rows are used.

    Raises:
        Conflict: the model looks its classes up in an index, was trained on a label, or knows too many products.
        UserError: a label is empty, nothing is given for it, a photo cannot be read (the error's cause is then a
            BadImage), or words are not in the vocabulary.
    """
    if base.info.index:
        raise Conflict(_too_many(base))
    kept, trained = base.enrolled.without(set(products)), set(base.trained.labels)
    if len(kept) + len(products) > enrolled.MOST_PRODUCTS:
        raise Conflict(f"more than {enrolled.MOST_PRODUCTS:,} enrolled products: it is time to train a model on them")
    given, rows = [], [torch.zeros(2, 0, base.info.model.dimension)]
    for label, queries in products.items():
        try:
            if not label.strip():
                raise UserError("the label is empty")
            if label in trained:
                raise Conflict("the model was trained on it")
            bounded = [_bounded(base, query) for query in queries[:PER_CLASS]]
            rows.append(_imprint(base, bounded)[:, None])
        except (images.BadImage, UserError) as error:
            kind = Conflict if isinstance(error, Conflict) else UserError
            raise kind(f"cannot enrol {label!r}: {error}") from error
        given += [{"label": label, "image": q.image, "title": q.title, "tags": list(q.tags)} for q in bounded]
    return _knowing(base, kept.plus(given, torch.cat(rows, 1)))


def withdraw(base: Bundle, label: str) -> Bundle:
    """A bundle without this enrolled product. :class:`Absent` if it is none."""
    known = base.enrolled.labels
    if label not in known:
        some = ", ".join(known[:10]) + (f" and {len(known) - 10:,} more" if len(known) > 10 else "")
        raise Absent(f"{label!r} is not an enrolled product: there are {some or 'none'}")
    return _knowing(base, base.enrolled.without({label}))


def carry(old: Bundle, new: Bundle) -> tuple[Bundle, dict[str, str]]:
    """A bundle of the new model that also knows the products enrolled in the old one, and was not trained on them.

    Returns:
        The bundle, `new` itself if there is nothing to carry, and why products were left behind, by label.
    """
    products, left, known = {}, {}, set(new.classes.labels if len(old.enrolled) else ())
    for label in old.enrolled.labels:
        if label in known:
            continue
        if new.info.index:
            left[label] = _too_many(new)
        else:
            queries = [Query(row["image"], row["title"], tuple(row["tags"])) for row in old.enrolled.of(label)]
            try:
                _imprint(new, queries)
                products[label] = queries
            except (images.BadImage, UserError) as error:
                left[label] = str(error)
    return (enrol(new, products) if products else new), left


@dataclass(frozen=True)
class Gathered:
    """The rows of a catalogue, as far as they say something of new products."""

    products: dict[str, list[Query]]
    trained: int
    """Rows of classes that the model was trained on."""
    spare: int
    """Rows of products that had `PER_CLASS` good ones already."""
    bad: list[dict[str, str]]
    """Rows that say nothing: id, label, reason, detail."""

    def summary(self) -> dict[str, Any]:
        """As JSON, with the number of rows in place of what they say."""
        return {**vars(self), "products": {label: len(queries) for label, queries in self.products.items()}}

    def told(self, most: int = 10) -> str:
        """A few lines for people."""
        lines = [f"{label}: {len(queries)} rows" for label, queries in self.products.items()]
        lines = lines[:most] + ([f"and {len(lines) - most:,} products more"] if len(lines) > most else [])
        if self.trained:
            lines.append(f"left alone: {self.trained:,} rows of products that the model was trained on")
        if self.spare:
            lines.append(f"left out: {self.spare:,} rows beyond {PER_CLASS} of a product")
        for reason, rows in Counter(row["reason"] for row in self.bad).most_common():
            ids = [row["id"] for row in self.bad if row["reason"] == reason]
            lines.append(f"left out: {rows:,} {reason}: {', '.join(ids[:most])}" + (", …" if rows > most else ""))
        return "\n".join(lines)


def gather(base: Bundle, dataset: Dataset) -> Gathered:
    """What a catalogue (in the schema of `sicot.catalogue.schema.ROW`) has of products that are not trained.

    :class:`UserError` if that is nothing, or the model cannot enrol any.
    """
    if base.info.index:
        raise UserError(_too_many(base))
    products: dict[str, list[Query]] = {}
    bad, trained, spare, known = [], 0, 0, set(base.trained.labels)
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)  # a few rows need no progress, errors reach the caller
    dataset.context.enable_progress_bars = dataset.context.print_on_execution_start = False
    batches: Any = dataset.iter_batches(batch_size=256, batch_format="pyarrow")
    for row in (row for batch in batches for row in _rows(batch)):
        label = (row["label"] or "").strip()
        if label in known:
            trained += 1
        elif len(products.get(label, [])) == PER_CLASS:
            spare += 1
        else:
            try:
                query = _query(base, label, row)
                products.setdefault(label, []).append(query)
            except images.BadImage as error:
                bad.append({"id": row["id"], "label": label, "reason": error.reason, "detail": str(error)})
            except UserError as error:
                bad.append({"id": row["id"], "label": label, "reason": "nothing_to_go_by", "detail": str(error)})
    found = Gathered(products, trained, spare, bad)
    if not products:
        raise UserError(f"no new product in the catalogue; {'; '.join(found.told().splitlines()) or 'it has no rows'}")
    return found


def _rows(batch: pa.Table) -> Iterator[dict[str, Any]]:
    """Rows in the catalogue's schema; text that is no UTF-8 is no reason to stop."""
    tags = [texts(each.values) if each.is_valid else [] for each in batch["tags"]]
    columns: dict[str, list[Any]] = {
        name: texts(batch[name]) for name in ("id", "label", "title", "image_uri", "image_name")
    }
    columns |= {"tags": tags, "image": batch["image"].to_pylist()}
    for values in zip(*columns.values(), strict=True):
        yield dict(zip(columns, values, strict=True))


def _query(base: Bundle, label: str, row: dict[str, Any]) -> Query:
    """What a row says. Raises BadImage, or UserError if it says nothing."""
    if not label:
        raise UserError("the row has no label")
    photo = fetch(row["image"], row["image_uri"], row["image_name"], base.info.images.max_bytes)
    query = Query(photo, row["title"] or "", tuple(tag for tag in row["tags"] if tag))
    base.encode(query)
    return _bounded(base, query)


def save(made: Bundle, uri: str) -> None:
    """Write the bundle to ``uri`` (path or URI), in place of what is there."""
    with tempfile.TemporaryDirectory() as folder:
        for name in made.info.made:
            shutil.copyfile(Path(made.folder) / name, Path(folder) / name)
        for name, content in made.enrolled.files().items():
            (Path(folder) / name).write_bytes(content)
        (Path(folder) / "bundle.json").write_text(made.info.model_dump_json(indent=1))
        storage.replace_folder(folder, uri, "bundle.json")


def _too_many(base: Bundle) -> str:
    return (
        f"the model looks its {base.info.classes:,} classes up in an index: enrolment compares with all of them; "
        "train a model on the products instead"
    )


def _bounded(base: Bundle, query: Query) -> Query:
    """The query with its photo small enough to be kept."""
    if len(query.image or b"") <= enrolled.MOST_BYTES:
        return query
    square = images.decode(query.image or b"", base.info.images.model_copy(update={"size": enrolled.SIDE}))
    return replace(query, image=images.encode(square, 90))


@torch.inference_mode()
def _imprint(base: Bundle, queries: Sequence[Query]) -> Tensor:
    """The rows [2, D] of a product. Raises BadImage, or UserError where the model has nothing to go by."""
    if not queries:
        raise UserError("give photos, words, or both")
    items = [base.encode(query) for query in queries]
    photos = [item.image_HW3 for item in items if item.image_HW3 is not None]
    words = [item.words for item in items if base.info.model.uses_words and any(item.words)]
    rows_2D = torch.zeros(2, base.info.model.dimension)
    if photos:
        rows_2D[0] = mean_direction(base.see(torch.from_numpy(np.stack(photos)))).cpu()
    if words:
        rows_2D[1] = mean_direction(base.model.feature(None, base.pad(words).to(base.device))[0]).cpu()
    return rows_2D


def _knowing(base: Bundle, products: Enrolled) -> Bundle:
    files = {name: base.info.files[name] for name in base.info.made}
    files |= {name: hashlib.sha256(content).hexdigest() for name, content in products.files().items()}
    changed = {"enrolled": len(products), "files": files, "metrics": {}, "created": bundle.now()}
    info = base.info.model_copy(update=changed)
    info.digest = bundle.digest_of(info)
    return Bundle(
        base.folder, info, base.model, base.trained, base.vocabulary, products, engine=base.engine, photos=base.photos
    )
