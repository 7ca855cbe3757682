"""What becomes of each row, decided from small columns on one machine: its split, its class, or quarantine."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from sicot.catalogue.schema import SPLITS
from sicot.config import Groups, Split
from sicot.errors import UserError
from sicot.prepare import splits
from sicot.prepare.prepared import CLASSES, QUARANTINE


@dataclass(frozen=True)
class Plan:
    """The decision. Rows are in the order of their keys, which is the order they are stored in."""

    keys: np.ndarray  # int64 [N], sorted
    split: np.ndarray  # int8 [N], places in SPLITS
    label: np.ndarray  # int32 [N], rows of `classes`
    classes: pa.Table  # CLASSES
    quarantine: pa.Table  # QUARANTINE

    @property
    def rows(self) -> dict[str, int]:
        """Rows of each split."""
        return {name: int((self.split == code).sum()) for code, name in enumerate(SPLITS)}

    @property
    def train(self) -> np.ndarray:
        """Keys of the training rows, sorted."""
        return self.keys[self.split == splits.TRAIN]

    def quarantined(self) -> dict[str, int]:
        """Bad rows by reason."""
        counts = self.quarantine["reason"].value_counts().to_pylist()
        return {entry["values"]: entry["counts"] for entry in counts}


def make(rows: pa.Table, bad: pa.Table, seen: pa.Table, config: Split, groups: Groups) -> Plan:
    """Decide.

    ``rows``: `staging.SMALL` columns of the rows that passed their own checks; ``bad``: `staging.BAD`; both sorted by
    key. ``seen``: key and count, sorted by key, of all rows the catalogue has: what it no longer has is passed over.
    """
    quarantine = []
    rows, bad = (_with_count(table, seen) for table in (rows, bad))
    quarantine.append(bad.take(np.repeat(np.arange(bad.num_rows), bad["count"].to_numpy())))

    first = np.zeros(rows.num_rows, bool)
    first[np.unique(_codes(rows["id"])[0], return_index=True)[1]] = True
    copies = rows["count"].to_numpy() - first  # the first row of an id is used, other rows and copies of it are not
    quarantine.append(_bad(rows.take(np.repeat(np.arange(rows.num_rows), copies)), "id_duplicate", "used before"))
    rows = rows.filter(pa.array(first))

    given = pc.fill_null(pc.index_in(rows["split"], pa.array(SPLITS)), splits.TO_BE_MADE).to_numpy().astype(np.int8)
    labels, names = _codes(rows["label"])
    alike = [_codes(rows[name])[0] for name in ("photo", "text")]
    keys = rows["key"].to_numpy()
    split = splits.deal(keys, labels, alike, given, config)

    in_train = np.bincount(labels[split == splits.TRAIN], minlength=len(names))
    known = in_train[labels] > 0
    unknown = rows.filter(pa.array(~known))
    quarantine.append(_bad(unknown, "label_unknown", unknown["label"]))
    classes, index = _classes(names, in_train, groups)
    return Plan(
        keys=keys[known],
        split=split[known],
        label=index[labels[known]],
        classes=classes,
        quarantine=pa.concat_tables([table.select(QUARANTINE.names) for table in quarantine]),
    )


def check(plan: Plan, max_quarantined: float, source: str, folder: str) -> None:
    """:class:`UserError` if there is nothing to train on, or more bad rows than allowed. ``folder`` has them."""
    bad = plan.quarantine.num_rows
    total = bad + len(plan.keys)
    if total == 0:
        raise UserError(f"{source} has no rows: nothing to prepare")
    top = sorted(plan.quarantined().items(), key=lambda entry: (-entry[1], entry[0]))
    reasons = ", ".join(f"{reason} {count}" for reason, count in top[:3])
    if bad / total > max_quarantined:
        raise UserError(
            f"{bad} of {total} rows are bad ({reasons}), more than prepare.max_quarantined = {max_quarantined:g}: "
            f"see {folder}, then mend them or raise the limit"
        )
    if not plan.rows["train"]:
        raise UserError(f"{source}: no row is left to train on" + (f" ({reasons}); see {folder}" if bad else ""))


def _with_count(table: pa.Table, seen: pa.Table) -> pa.Table:
    """The rows that the catalogue has, with how often it has them."""
    place = pc.index_in(table["key"], seen["key"])
    return table.append_column("count", seen["count"].take(place)).filter(pc.is_valid(place))


def _codes(values: pa.ChunkedArray) -> tuple[np.ndarray, pa.Array]:
    """Number of each value among the sorted distinct values, int64 [N], -1 for null; and these values."""
    distinct = pc.unique(values).drop_null().sort()
    return pc.fill_null(pc.index_in(values, distinct), -1).to_numpy().astype(np.int64), distinct


def _bad(rows: pa.Table, reason: str, detail: str | pa.ChunkedArray) -> pa.Table:
    details = pa.repeat(detail, rows.num_rows) if isinstance(detail, str) else detail
    columns = [rows["id"], rows["split"], pa.repeat(reason, rows.num_rows), details]
    return pa.table(columns, schema=QUARANTINE)


def _classes(names: pa.Array, count: np.ndarray, groups: Groups) -> tuple[pa.Table, np.ndarray]:
    """CLASSES of the labels that training has, and the class of each of ``names``, int32 (-1 if it has none)."""
    used = count > 0
    index = np.where(used, np.cumsum(used) - 1, -1).astype(np.int32)
    count = count[used]
    prior = (count + 1) / (count.sum() + len(count))
    group = np.where(count > groups.head_above, "head", np.where(count < groups.tail_below, "tail", "medium"))
    columns = [names.filter(pa.array(used)), count, prior, group.tolist()]
    return pa.table([pa.array(column) for column in columns], schema=CLASSES), index
