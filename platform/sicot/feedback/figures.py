"""What champion and challenger did, from the database: shares of each version, and by how much the two differ.

Everything is summed up where the rows are: a report of ten million answers reads a few dozen rows.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any, get_args

import sqlalchemy as sa

from sicot.errors import UserError
from sicot.feedback import Arm
from sicot.feedback.shares import Share, Sums, difference
from sicot.feedback.store import ANSWER, CONVERSION, FEEDBACK, VERDICT, Store
from sicot.prepare.prepared import ENROLLED, GROUPS

MEASURES = {
    "acceptance": "answers that were accepted",
    "accuracy": "first products that were right, of the answers that were accepted or corrected",
    "conversion": "visitors who converted; answers, where nobody said who visits",
}
ALL = "all"
ARMS = get_args(Arm)
Figures = dict[tuple[str, str, str], dict[str, Sums]]
"""By arm, version and group: the sums of each measure."""
Shares = dict[str, dict[str, Share]]
"""By measure and group."""


def collect(store: Store, since: float = 0.0) -> dict[str, Any]:
    """All figures, as JSON.

    Args:
        store: the database.
        since: answers given before are left out, seconds since 1970.

    Returns:
        ``versions``: for each arm and version, `answers`, `visitors`, `from` and `to` (UTC), and `measures`: by
        `MEASURES`, for all answers and by head, medium, tail (and enrolled) of the first product, a
        :class:`sicot.feedback.shares.Share`. ``comparison``: the versions that answered last in either arm, over the
        time when both answered: by measure and group, see :func:`sicot.feedback.shares.difference`; None where there
        are no two. ``unanswered``: feedback whose answer is not in the database, which counts nowhere.

    Raises:
        UserError: the database does not answer, or has no answers since then.
    """
    with store.answering():
        versions = _versions(store, since)
        if not versions:
            raise UserError(f"{store.name} has no answers{f' since {_date(since)}' if since else ''} to report on")
        figures = _figures(store, since, None)
        return {
            "database": store.name,
            "versions": [_told(each, _shares(figures, each["arm"], each["version"])) for each in versions],
            "comparison": _comparison(store, versions),
            "unanswered": _unanswered(store),
        }


def _versions(store: Store, since: float) -> list[dict[str, Any]]:
    """Arm and version, and when they answered; champions first, the oldest first."""
    first, last = sa.func.min(ANSWER.c.time).label("first"), sa.func.max(ANSWER.c.time).label("last")
    counts = sa.func.count().label("answers"), sa.func.count(sa.distinct(ANSWER.c.visitor)).label("visitors")
    found = sa.select(ANSWER.c.arm, ANSWER.c.version, *counts, first, last).where(ANSWER.c.time >= since)
    rows = [dict(row._mapping) for row in store.rows(found.group_by(ANSWER.c.arm, ANSWER.c.version))]
    return sorted(rows, key=lambda row: (ARMS.index(row["arm"]), row["first"]))


def _told(version: dict[str, Any], shares: Shares) -> dict[str, Any]:
    """What the report says of a version."""
    said = {name: version[name] for name in ("arm", "version", "answers", "visitors")}
    measures = {name: {group: asdict(each) for group, each in groups.items()} for name, groups in shares.items()}
    return {**said, "from": _date(version["first"]), "to": _date(version["last"]), "measures": measures}


def _comparison(store: Store, versions: list[dict[str, Any]]) -> dict[str, Any] | None:
    """Of the versions that answered last, while both did."""
    newest = {each["arm"]: each for each in sorted(versions, key=lambda each: each["last"])}
    if len(newest) < len(ARMS):
        return None
    first, last = max(each["first"] for each in newest.values()), min(each["last"] for each in newest.values())
    figures = _figures(store, first, last)
    champion, challenger = (_shares(figures, arm, newest[arm]["version"]) for arm in ARMS)
    return (
        {
            "champion": newest["champion"]["version"],
            "challenger": newest["challenger"]["version"],
            "from": _date(first),
            "to": _date(last),
            "measures": {
                name: {
                    group: difference(challenger[name][group], share)
                    for group, share in groups.items()
                    if group in challenger[name]
                }
                for name, groups in champion.items()
            },
        }
        if first <= last
        else None
    )


def _shares(figures: Figures, arm: str, version: str) -> Shares:
    """Of one version."""
    there = [group for group in (ALL, *GROUPS, ENROLLED) if (arm, version, group) in figures]
    return {name: {group: Share.of_sums(figures[arm, version, group][name]) for group in there} for name in MEASURES}


def _figures(store: Store, first: float, last: float | None) -> Figures:
    """Sums over the answers given in a time, all of them and by group."""
    found: Figures = {}
    for by_group in (False, True):
        for row in store.rows(_sums(first, last, by_group)):
            found[row.arm, row.version, row.shots if by_group else ALL] = {
                name: Sums(*(float(row._mapping[f"{name}_{what}"] or 0) for what in _SUMS)) for name in MEASURES
            }
    return found


_SUMS = ("units", "x", "n", "xx", "xn", "nn")


def _sums(first: float, last: float | None, by_group: bool) -> sa.Select[Any]:
    """The query of :func:`_figures`: per visitor first, then over visitors. Who has no name is one for each answer."""
    verdict, conversion = FEEDBACK.alias("verdict"), FEEDBACK.alias("conversion")
    unit = sa.func.coalesce(ANSWER.c.visitor, ANSWER.c.request_id)
    groups = [ANSWER.c.arm, ANSWER.c.version, *([ANSWER.c.shots] if by_group else [])]
    of_answer = {
        "acceptance": (_count(verdict.c.outcome == "accepted"), sa.func.count()),
        "accuracy": (
            _count(sa.func.coalesce(verdict.c.label, ANSWER.c.label) == ANSWER.c.label, verdict.c.kind.is_not(None)),
            sa.func.count(verdict.c.kind),
        ),
        "conversion": (sa.func.max(sa.case((conversion.c.kind.is_not(None), 1), else_=0)), sa.literal(1)),
    }
    columns = [
        each.label(f"{name}_{what}") for name, pair in of_answer.items() for what, each in zip("xn", pair, strict=True)
    ]
    joined = ANSWER.outerjoin(
        verdict, sa.and_(verdict.c.request_id == ANSWER.c.request_id, verdict.c.kind == VERDICT)
    ).outerjoin(conversion, sa.and_(conversion.c.request_id == ANSWER.c.request_id, conversion.c.kind == CONVERSION))
    within = [ANSWER.c.time >= first, *([ANSWER.c.time <= last] if last is not None else [])]
    visitors = sa.select(*groups, *columns).select_from(joined).where(*within).group_by(*groups, unit).subquery()
    keys = [visitors.c[group.name] for group in groups]
    return sa.select(*keys, *(each for name in MEASURES for each in _summed(visitors, name))).group_by(*keys)


def _summed(visitors: sa.Subquery, name: str) -> Iterator[sa.Label[Any]]:
    """The columns of :class:`Sums`."""
    x, n = visitors.c[f"{name}_x"], visitors.c[f"{name}_n"]
    values = (_count(n > 0), *(sa.func.sum(each) for each in (x, n, x * x, x * n, n * n)))
    return (value.label(f"{name}_{what}") for value, what in zip(values, _SUMS, strict=True))


def _count(*conditions: sa.ColumnElement[bool]) -> sa.ColumnElement[int]:
    """Rows of a group that fulfil all of these."""
    return sa.func.sum(sa.case((sa.and_(*conditions), 1), else_=0))


def _unanswered(store: Store) -> int:
    known = sa.exists().where(ANSWER.c.request_id == FEEDBACK.c.request_id)
    ((count,),) = store.rows(sa.select(sa.func.count()).select_from(FEEDBACK).where(~known))
    return int(count)


def seconds(since: datetime | None) -> float:
    """Since 1970; UTC where no other zone is said."""
    if since is None:
        return 0.0
    return (since if since.tzinfo else since.replace(tzinfo=UTC)).timestamp()


def _date(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")
