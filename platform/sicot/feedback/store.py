"""The database of answers and of what people said of them: SQLite or PostgreSQL.

    answer      one row for each answer that was given
    feedback    at most two for each answer: the last verdict (accepted or corrected), and whether it was converted
    meta        the version of these tables, and the salt of visitors' hashes

Both are written so that writing the same again changes nothing. Who visits is not kept, only a
hash with the database's own salt: visitors can be counted, and be looked for by who has the database alone.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import ArgumentError, SQLAlchemyError
from sqlalchemy.schema import CreateIndex, CreateTable

from sicot.errors import UserError
from sicot.feedback import Arm, Outcome

VERSION = "1"
SECONDS = 5
"""That a connection, a lock or a statement is waited for at most: people wait for the answer."""
FORGOTTEN = 1000
"""Rows that are deleted at once."""
VERDICT, CONVERSION = "verdict", "conversion"

TABLES = sa.MetaData()
META = sa.Table("meta", TABLES, sa.Column("name", sa.Text, primary_key=True), sa.Column("value", sa.Text))
ANSWER = sa.Table(
    "answer",
    TABLES,
    sa.Column("request_id", sa.Text, primary_key=True),
    sa.Column("time", sa.Double, nullable=False),  # seconds since 1970
    sa.Column("arm", sa.Text, nullable=False),
    sa.Column("version", sa.Text, nullable=False),  # in the registry; the digest's beginning where there is none
    sa.Column("visitor", sa.Text),  # a hash; null where nobody said who it was
    sa.Column("label", sa.Text, nullable=False),  # the first of the answer
    sa.Column("score", sa.Double, nullable=False),
    sa.Column("unknown", sa.Boolean, nullable=False),
    sa.Column("shots", sa.Text, nullable=False),  # head, medium, tail or enrolled: what `label` is
    sa.Index("answer_time", "time"),
)
FEEDBACK = sa.Table(
    "feedback",
    TABLES,
    sa.Column("request_id", sa.Text, primary_key=True),
    sa.Column("kind", sa.Text, primary_key=True),  # verdict or conversion
    sa.Column("time", sa.Double, nullable=False),
    sa.Column("outcome", sa.Text, nullable=False),
    sa.Column("label", sa.Text),  # null: the first of the answer
    sa.Column("image", sa.LargeBinary),  # of a correction
    sa.Column("title", sa.Text),
    sa.Column("tags", sa.Text),  # JSON
    sa.Index("feedback_time", "time"),
)


@dataclass(frozen=True)
class Answered:
    """An answer that was given."""

    request_id: str
    time: float
    """Seconds since 1970."""
    arm: Arm
    version: str
    visitor: str | None
    """The visitor's own name; what is kept of it is a hash."""
    label: str
    score: float
    unknown: bool
    shots: str


@dataclass(frozen=True)
class Feedback:
    """What somebody said of an answer."""

    request_id: str
    time: float
    outcome: Outcome
    label: str | None = None
    """The right product, or the one accepted or converted; None for the first of the answer."""
    image: bytes | None = field(default=None, repr=False)
    title: str = ""
    tags: tuple[str, ...] = ()

    @property
    def kind(self) -> str:
        """What it takes the place of: the verdict before, or the conversion."""
        return CONVERSION if self.outcome == "converted" else VERDICT


class Store:
    """The database at a URL. Made without asking it; every method raises SQLAlchemyError where it does not answer."""

    def __init__(self, url: str) -> None:
        """:class:`UserError` if the URL is none of SQLite or PostgreSQL."""
        address = _address(url)
        self.name = address.render_as_string(hide_password=True)
        is_file = address.get_backend_name() == "sqlite"
        self._insert = sqlite.insert if is_file else postgresql.insert
        connect = {"timeout": SECONDS} if is_file else {"connect_timeout": SECONDS, "tcp_user_timeout": SECONDS * 1000}
        try:
            self.engine = sa.create_engine(
                address, pool_pre_ping=True, pool_timeout=SECONDS, connect_args=connect, hide_parameters=True
            )
        except ImportError as error:
            raise UserError(f"{self.name} needs the driver psycopg: pip install 'psycopg[binary]'") from error
        sa.event.listen(self.engine, "connect", _set_up_file if is_file else _set_up_server)

    @classmethod
    def open(cls, url: str) -> Store:
        """The database, asked and made ready. :class:`UserError` if it does not answer."""
        store = cls(url)
        if store.engine.dialect.name == "sqlite":
            try:
                Path(store.engine.url.database or "").parent.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise UserError(f"the database {store.name} cannot be made: {error.strerror}") from error
        with store.answering():
            _ = store.salt
        return store

    @classmethod
    def existing(cls, url: str) -> Store:
        """:meth:`open` for who only reads: no SQLite file is made. :class:`UserError` if there is none."""
        address = _address(url)
        if address.get_backend_name() == "sqlite" and not Path(address.database or "").exists():
            raise UserError(f"no database at {address.database}: an endpoint that keeps feedback makes it")
        return cls.open(url)

    @contextmanager
    def answering(self) -> Iterator[None]:
        """What the database raises inside becomes one line for the user."""
        try:
            yield
        except SQLAlchemyError as error:
            raise UserError(f"the database {self.name} does not answer: {line(error)}") from error

    @cached_property
    def salt(self) -> bytes:
        """Of the visitors' hashes. Makes tables where there are none; :class:`UserError` if there are other ones."""
        with self.engine.begin() as connection:
            if connection.dialect.name == "postgresql":  # two that make the same table at once would both fail
                connection.execute(sa.select(sa.func.pg_advisory_xact_lock(0x51C07)))
            for table in TABLES.sorted_tables:
                connection.execute(CreateTable(table, if_not_exists=True))
                for index in table.indexes:
                    connection.execute(CreateIndex(index, if_not_exists=True))
            fresh = [{"name": "version", "value": VERSION}, {"name": "salt", "value": secrets.token_hex(32)}]
            connection.execute(self._insert(META).on_conflict_do_nothing(), fresh)
            meta = {row.name: row.value for row in connection.execute(sa.select(META))}
        if meta["version"] != VERSION:
            raise UserError(f"{self.name} has tables of version {meta['version']}, this is for {VERSION}: name another")
        return bytes.fromhex(meta["salt"])

    def record(self, answers: Sequence[Answered]) -> None:
        """Keep answers; of two with the same id, the first."""
        salt = self.salt
        rows = [_plain({**vars(each), "visitor": _hashed(salt, each.visitor)}) for each in answers]
        with self._writing() as connection:
            connection.execute(self._insert(ANSWER).on_conflict_do_nothing(), rows)

    def keep(self, feedback: Feedback) -> None:
        """Keep feedback in place of what was said before of the same answer; on return, no crash undoes it."""
        tags = json.dumps(feedback.tags, ensure_ascii=False)
        row = _plain({**vars(replace(feedback, tags=())), "kind": feedback.kind, "tags": tags})
        _ = self.salt  # the tables
        insert = self._insert(FEEDBACK).values(row)
        changed = {name: insert.excluded[name] for name in row if name not in ("request_id", "kind")}
        with self._writing() as connection:
            newer = FEEDBACK.c.time <= insert.excluded.time  # this may have hung meanwhile
            connection.execute(
                insert.on_conflict_do_update(index_elements=["request_id", "kind"], set_=changed, where=newer)
            )

    def forget(self, before: float) -> int:
        """Delete answers and feedback from before a time, seconds since 1970; gives how many.

        Some at a time: nobody who writes meanwhile waits for all of them.
        """
        _, gone = self.salt, 0
        for table in (ANSWER, FEEDBACK):
            keys = sa.tuple_(*table.primary_key.columns)
            old = sa.select(*table.primary_key.columns).where(table.c.time < before).limit(FORGOTTEN)
            while True:
                with self._writing() as connection:
                    count = connection.execute(sa.delete(table).where(keys.in_(old))).rowcount
                gone += count
                if count < FORGOTTEN:
                    break
        return gone

    def rows(self, select: sa.Select[*tuple[Any, ...]]) -> Iterator[Any]:
        """What a query finds, some rows at a time."""
        with self.engine.connect().execution_options(yield_per=200) as connection:
            yield from connection.execute(select)

    @contextmanager
    def _writing(self) -> Iterator[sa.Connection]:
        """A transaction that does not wait for ever."""
        with self.engine.begin() as connection:
            if connection.dialect.name == "postgresql":
                connection.exec_driver_sql(f"SET LOCAL statement_timeout = '{SECONDS}s'")
            yield connection

    def close(self) -> None:
        """Close the connections."""
        self.engine.dispose()


def _hashed(salt: bytes, visitor: str | None) -> str | None:
    """HMAC-SHA-256, 128 bits of it, hexadecimal."""
    return hmac.new(salt, visitor.encode(), hashlib.sha256).hexdigest()[:32] if visitor else None


def line(error: SQLAlchemyError) -> str:
    """What a database complains of, in one line."""
    text = " ".join(str(getattr(error, "orig", None) or error).split())
    return text[:300] or type(error).__name__


def absolute(url: str) -> str:
    """The URL as every process can use it. :class:`UserError` if it is none of SQLite or PostgreSQL."""
    return _address(url).render_as_string(hide_password=False)


def _address(url: str) -> sa.URL:
    try:
        address = sa.make_url(url)
        backend = address.get_backend_name()
    except (ArgumentError, ValueError):
        raise UserError("serve.feedback: write sqlite:///file.db or postgresql://user@host/name") from None
    if "password" in address.query:  # only the one before the @ is kept out of logs
        raise UserError(
            "serve.feedback: write postgresql://user:password@host/name, or put the password into ~/.pgpass"
        )
    if backend in ("postgresql", "postgres"):
        return address.set(drivername="postgresql+psycopg")
    if backend != "sqlite" or address.database in (None, "", ":memory:"):
        raise UserError("serve.feedback: write sqlite:///file.db or postgresql://user@host/name")
    return address.set(drivername="sqlite", database=str(Path(address.database).absolute()))


def _set_up_file(connection: Any, _: Any) -> None:
    """Readers and a writer at once; a commit is on the disk when it returns."""
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")


def _set_up_server(connection: Any, _: Any) -> None:
    """A commit is on the server's disk when it returns, whatever its own settings are."""
    with connection.cursor() as cursor:
        cursor.execute("SET synchronous_commit = on")
    connection.commit()


def _plain(row: dict[str, Any]) -> dict[str, Any]:
    """The row without zero characters, which PostgreSQL cannot keep."""
    return {name: value.replace("\0", "") if isinstance(value, str) else value for name, value in row.items()}
