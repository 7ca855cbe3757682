"""The database: what is acknowledged is kept, what is said twice counts once, and nobody is named."""

from __future__ import annotations

import signal
import sqlite3
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.exc import OperationalError

from sicot.errors import UserError
from sicot.feedback.store import ANSWER, FEEDBACK, META, Answered, Feedback, Store

WRITER = """
import sys, time
from sicot.feedback.store import Feedback, Store
store, n = Store(sys.argv[1]), 0
while True:
    store.keep(Feedback(f"{sys.argv[2]}-{n}", time.time(), "accepted"))
    print(n, flush=True)  # acknowledged
    n += 1
"""


def answered(request_id: str, **changes: Any) -> Answered:
    said = {"time": 1.0, "arm": "champion", "version": "3", "visitor": None, "label": "bag", "score": 0.9}
    return Answered(request_id, **{**said, "unknown": False, "shots": "head", **changes})


def kept(store: Store) -> list[tuple[str, str, str | None]]:
    rows = store.rows(sa.select(FEEDBACK).order_by(FEEDBACK.c.request_id, FEEDBACK.c.kind))
    return [(row.request_id, row.outcome, row.label) for row in rows]


def acknowledged(url: str, name: str, least: int) -> int:
    """How many pieces of feedback a process had acknowledged when it was killed, at least so many."""
    with subprocess.Popen([sys.executable, "-c", WRITER, url, name], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        for line in process.stdout:
            if int(line) >= least:
                process.send_signal(signal.SIGKILL)
                break
        said = [int(line), *map(int, process.stdout.read().split())]
    return said[-1] + 1


def test_what_a_killed_process_had_acknowledged_is_there(store: Store, url: str) -> None:
    for name in ("a", "b", "c"):
        count = acknowledged(url, name, 30)
        rows = {row for row, *_ in kept(store) if row.startswith(name)}
        assert rows >= {f"{name}-{n}" for n in range(count)}
        assert len(rows) <= count + 1  # one may have been written and not yet acknowledged


def test_what_is_too_old_is_forgotten_and_nothing_else(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sicot.feedback.store.FORGOTTEN", 3)
    store.record([answered(f"r{n}", time=float(n)) for n in range(20)])
    for n in range(0, 20, 2):
        store.keep(Feedback(f"r{n}", n + 5.0, "accepted"))
        store.keep(Feedback(f"r{n}", n + 50.0, "converted"))
    assert store.forget(before=12.0) == 12 + 4
    assert {row.request_id for row in store.rows(sa.select(ANSWER))} == {f"r{n}" for n in range(12, 20)}
    verdicts = {request_id for request_id, outcome, _ in kept(store) if outcome == "accepted"}
    assert verdicts == {f"r{n}" for n in range(8, 20, 2)}
    assert len([1 for _, outcome, _ in kept(store) if outcome == "converted"]) == 10
    assert store.forget(before=12.0) == 0


def test_what_comes_late_does_not_undo_what_was_said_since(store: Store) -> None:
    store.keep(Feedback("r", 20.0, "corrected", "hat"))
    store.keep(Feedback("r", 10.0, "accepted"))
    assert kept(store) == [("r", "corrected", "hat")]
    store.keep(Feedback("r", 30.0, "accepted"))
    assert kept(store) == [("r", "accepted", None)]


@pytest.mark.parametrize("url", ["postgresql://shop@host/sicot?password=secret", "postgresql://host:port/sicot"])
def test_an_address_that_would_show_its_password_or_is_none_is_refused(url: str) -> None:
    with pytest.raises(UserError, match=r"^serve\.feedback: write postgresql://|^serve\.feedback: write sqlite"):
        Store(url)


def test_processes_that_make_the_tables_at_once_agree(url: str) -> None:
    Path(url.removeprefix("sqlite:///")).parent.mkdir(parents=True, exist_ok=True)
    stores, together = [Store(url) for _ in range(8)], threading.Barrier(8)

    def salt(store: Store) -> bytes:
        together.wait()
        return store.salt

    with ThreadPoolExecutor(8) as pool:
        assert len(set(pool.map(salt, stores))) == 1
    for store in stores:
        store.close()


def test_a_commit_reaches_the_disk_before_it_is_acknowledged(tmp_path: Path) -> None:
    with Store.open(f"sqlite:///{tmp_path}/feedback.db").engine.connect() as connection:
        assert connection.exec_driver_sql("PRAGMA synchronous").scalar() == 2  # FULL
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"


def test_the_same_feedback_twice_is_there_once_and_the_last_verdict_counts(store: Store) -> None:
    for _ in range(2):
        store.keep(Feedback("r", 1.0, "accepted"))
        store.keep(Feedback("r", 1.0, "converted", "mug"))
    assert kept(store) == [("r", "converted", "mug"), ("r", "accepted", None)]
    store.keep(Feedback("r", 2.0, "corrected", "bag", b"photo", "title", ("a", "b")))
    assert kept(store) == [("r", "converted", "mug"), ("r", "corrected", "bag")]
    store.keep(Feedback("r", 3.0, "accepted"))
    (row,) = store.rows(sa.select(FEEDBACK).where(FEEDBACK.c.kind == "verdict"))
    assert (row.outcome, row.label, row.image, row.title, row.tags) == ("accepted", None, None, "", "[]")


def test_an_answer_is_counted_once(store: Store) -> None:
    store.record([answered("r", label="bag"), answered("s")])
    store.record([answered("r", label="mug")])
    assert [(row.request_id, row.label) for row in store.rows(sa.select(ANSWER))] == [("r", "bag"), ("s", "bag")]


def test_of_a_visitor_a_salted_hash_is_kept(store: Store, url: str, tmp_path: Path) -> None:
    store.record([answered(n, visitor=who) for n, who in (("1", "ann@shop"), ("2", "ann@shop"), ("3", "bob"))])
    again = Store.open(url)  # another process, or the same one later
    again.record([answered("4", visitor="ann@shop"), answered("5")])
    again.close()
    one, two, three, four, nobody = (row.visitor for row in store.rows(sa.select(ANSWER).order_by("request_id")))
    assert one == two == four != three
    assert nobody is None
    elsewhere = Store.open(f"sqlite:///{tmp_path}/other.db")
    elsewhere.record([answered("1", visitor="ann@shop")])
    assert next(elsewhere.rows(sa.select(ANSWER))).visitor != one  # no table of hashes fits two databases
    assert b"ann@shop" not in b"".join(file.read_bytes() for file in tmp_path.glob("other.db*"))


def test_zero_characters_which_postgresql_refuses_are_left_out(store: Store) -> None:
    store.keep(Feedback("r\0", 1.0, "corrected", "ba\0g", None, "\0"))
    assert kept(store) == [("r", "corrected", "bag")]


def test_a_database_that_was_made_by_another_version_is_refused(store: Store, url: str) -> None:
    with store.engine.begin() as connection:
        connection.execute(sa.update(META).where(META.c.name == "version").values(value="99"))
    with pytest.raises(UserError, match="tables of version 99"):
        Store.open(url)


@pytest.mark.parametrize("wrong", ["", "feedback.db", "sqlite://", "sqlite:///:memory:", "mysql://host/db", "auto"])
def test_what_is_no_database_is_refused(wrong: str) -> None:
    with pytest.raises(UserError, match=r"write sqlite:///file\.db or postgresql://"):
        Store(wrong)


def test_a_database_that_is_away_is_named_without_its_password(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"shop:\*\*\*@127.0.0.1:1/x does not answer") as away:
        Store.open("postgresql://shop:secret@127.0.0.1:1/x")
    assert "secret" not in str(away.value)
    with pytest.raises(UserError, match="no database at"):
        Store.existing(f"sqlite:///{tmp_path}/nothing.db")
    assert not list(tmp_path.iterdir())


def test_a_lock_is_not_waited_for_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sicot.feedback.store.SECONDS", 0.1)
    impatient = Store.open(f"sqlite:///{tmp_path}/feedback.db")
    with sqlite3.connect(tmp_path / "feedback.db") as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(OperationalError, match="locked"):
            impatient.keep(Feedback("r", 1.0, "accepted"))
    impatient.keep(Feedback("r", 1.0, "accepted"))
    assert kept(impatient) == [("r", "accepted", None)]
