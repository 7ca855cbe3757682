"""Who is let in: holders of a key, or this machine alone."""

from __future__ import annotations

import asyncio
import base64
from pathlib import Path

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs import key as job
from sicot import config
from sicot.endpoint import api, keys, server
from sicot.endpoint.keys import Keys
from sicot.errors import UserError
from tests.serve.test_api import PAGE, Recorded, refusal

HEADER = {"content-type": "image/jpeg"}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "keys.txt"


def ask(
    place: Path | None, path: str = "/v1/model", client: str = "203.0.113.5", host: str = "localhost", **headers: str
) -> httpx.Response:
    """The answer to somebody from elsewhere."""
    settings = config.Serve(keys=str(place) if place else None)

    async def run() -> httpx.Response:
        transport = httpx.ASGITransport(api.create(Recorded(), settings, PAGE), client=(client, 999))
        async with httpx.AsyncClient(transport=transport, base_url=f"http://{host}") as http:
            return await http.get(path, headers=headers)

    return asyncio.run(run())


def basic(name: str, key: str) -> str:
    return "Basic " + base64.b64encode(f"{name}:{key}".encode()).decode()


def test_any_of_several_keys_lets_in_and_nothing_else_does(file: Path) -> None:
    first, second = keys.add("first", str(file)), keys.add("second", str(file))
    for good in (f"Bearer {first}", f"bearer {second}", basic("whoever", second), basic("", first)):
        assert ask(file, authorization=good).status_code == 200
    sha = file.read_text().split("sha256:")[1][:64]
    for bad in (
        "",
        f"Bearer {first}x",
        f"Bearer {sha}",
        first,
        f"Digest {first}",
        "Basic %%%",
        basic(first, ""),
        "Bearer ",
    ):
        answer = ask(file, authorization=bad)
        assert refusal(answer) == (401, "unauthorized")
        assert answer.headers["www-authenticate"].startswith("Basic")
        assert first not in answer.text
        assert "default-src 'none'" in answer.headers["content-security-policy"]


@pytest.mark.parametrize("path", ["/", "/docs", "/openapi.json", "/page/app.js", "/v1/model", "/nothing"])
def test_every_path_is_behind_the_keys(file: Path, path: str) -> None:
    keys.add("one", str(file))
    assert ask(file, path).status_code == 401
    assert ask(file, path, client="127.0.0.1").status_code == 401


def test_who_watches_over_the_endpoint_needs_no_key(file: Path) -> None:
    keys.add("one", str(file))
    for path in ("/healthz", "/readyz"):
        assert ask(file, path).status_code == 200


@pytest.mark.parametrize("client", ["127.0.0.1", "127.9.9.9", "::1"])
def test_without_keys_this_machine_is_answered(client: str) -> None:
    assert ask(None, client=client).status_code == 200


@pytest.mark.parametrize("client", ["203.0.113.5", "10.0.0.1", "::ffff:10.0.0.1", "", "unix:"])
def test_without_keys_nobody_else_is(client: str) -> None:
    assert refusal(ask(None, client=client)) == (403, "no_keys")


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.1:8000", "[::1]:8000", "[::1]", "localhost:8000"])
def test_without_keys_this_machine_is_asked_by_its_own_name(host: str) -> None:
    assert ask(None, client="127.0.0.1", host=host).status_code == 200


@pytest.mark.parametrize("host", ["shop.example", "shop.example:8000", "127.0.0.1.shop.example", "10.0.0.1"])
def test_a_page_elsewhere_cannot_ask_through_a_browser_here(host: str) -> None:
    assert refusal(ask(None, client="127.0.0.1", host=host)) == (403, "no_keys")


def test_keys_can_stand_in_the_environment(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    key = keys.add("one", str(file))
    monkeypatch.setenv("SICOT_KEYS", f"# ours\n\n{file.read_text()}")
    assert ask(None, authorization=f"Bearer {key}").status_code == 200
    assert ask(None, client="127.0.0.1").status_code == 401


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("", "names no key"),
        ("# only words\n", "names no key"),
        ("app plainkey", "line 1 of .* is not `<name> sha256:"),
        (f"a sha256:{'0' * 64}\na sha256:{'1' * 64}", "line 2 of .* names a key twice"),
        (f"a sha256:{'0' * 63}", "line 1"),
    ],
)
def test_a_file_that_is_none_is_refused_before_anyone_is_let_in(file: Path, text: str, line: str) -> None:
    file.write_text(text)
    with pytest.raises(UserError, match=line):
        Keys.read(str(file))
    with pytest.raises(UserError, match="cannot be read"):
        Keys.read(str(file.with_name("nothing")))


def test_the_job_shows_a_key_once_and_keeps_what_was_there(
    file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file.write_text(f"# ours\nold sha256:{'0' * 64}")

    def run(*arguments: str) -> str:
        monkeypatch.setattr("sys.argv", ["jobs.key", *arguments, "--file", str(file)])
        job.main()
        return capsys.readouterr().out

    shown = run("app").splitlines()[0]
    assert file.read_text().startswith(f"# ours\nold sha256:{'0' * 64}\napp sha256:")
    assert shown not in file.read_text()
    assert Keys.read(str(file)).holder(f"Bearer {shown}") == "app"
    with pytest.raises(UserError, match="has a key called app"):
        run("app")
    with pytest.raises(UserError, match="is no name for a key"):
        run("two words")


@given(st.text(max_size=80), st.dictionaries(st.text("ab", min_size=1), st.text(max_size=20), max_size=3))
def test_no_header_breaks_it(header: str, held: dict[str, str]) -> None:
    ours = Keys({name: keys.digest(key) for name, key in held.items()})
    assert ours.holder(header) in {None, *held}
    for key in held.values():
        if key == key.strip():
            assert held[ours.holder(f"Bearer {key}") or ""] == key


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.7", "shop.example"])
def test_an_endpoint_open_to_others_does_not_start_without_keys(host: str) -> None:
    with pytest.raises(UserError, match=r"lets others in: make keys"):
        server.listen(config.Serve(host=host, port=0))
