"""The report of a running folder as a page on this machine that keeps itself up to date."""

from __future__ import annotations

import errno
import hashlib
import json
import sys
import threading
import time
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from gancore.errors import ConfigError, GancoreError
from gancore.report.build import report
from gancore.report.reading import RunReader, is_training

ADDRESS = "127.0.0.1"
"""The only address that is listened on: nobody else on the network sees the page."""

SHARE = 10.0
"""After a page is made, the next waits so many times as long, since the run wants the machine."""


class LivePage:
    """The page of a run, made anew when its folder has changed.

    Args:
        path: the run folder.

    Raises:
        CheckpointError: there is no run in it.
    """

    def __init__(self, path: str | Path) -> None:
        self._reader = RunReader(path)
        self._reading = threading.Lock()
        self._drawing = threading.Lock()  # matplotlib's settings are global; others wait for the same page anyway
        self._version = self._made = ""
        self._page = b""
        self._not_before = 0.0

    def state(self) -> dict[str, Any]:
        """What the page asks for: ``version``, ``state``, ``step``, ``steps``."""
        with self._reading:
            self._advance()
            record = self._reader.read()
            return {
                "version": self._version,
                "state": record.state,
                "step": record.step,
                "steps": record.steps,
            }

    def page(self) -> bytes:
        """The page, as it is in its newest version."""
        with self._drawing:
            with self._reading:
                self._advance()
                version = self._version
                record = self._reader.read() if version != self._made else None
            if record is not None:
                began = time.monotonic()
                self._page = report([record], live=version).encode()
                self._made = version
                self._not_before = time.monotonic() + SHARE * (time.monotonic() - began)
            return self._page

    def _advance(self) -> None:
        running = is_training(self._reader.path)
        version = f"{self._signature()}-{'running' if running else 'ended'}"
        if version != self._version and (time.monotonic() >= self._not_before or not running):
            self._version = version

    def _signature(self) -> str:
        """Changes with every file that a page shows: files that grow by their size, folders by their time."""
        parts = []
        for path in self._reader.path.iterdir():
            if path.suffix in ("", ".json", ".jsonl", ".toml"):
                status = path.stat()
                parts.append(f"{path.name} {status.st_mtime_ns} {status.st_size}")
        return hashlib.sha256("\n".join(sorted(parts)).encode()).hexdigest()[:16]


class PageServer(ThreadingHTTPServer):
    """Serves a :class:`LivePage` on this machine alone.

    Args:
        page: what is served. port: 0 for a free one.

    Raises:
        ConfigError: the port cannot be had.
    """

    daemon_threads = True

    def __init__(self, page: LivePage, port: int = 0) -> None:
        self.page = page
        try:
            super().__init__((ADDRESS, port), _Handler)
        except OSError as error:
            why = "is taken" if error.errno == errno.EADDRINUSE else f"cannot be had: {error.strerror}"
            raise ConfigError(
                f"port {port} of {ADDRESS} {why}; choose another with --port N, or leave it out for a free one"
            ) from None
        self.url = f"http://{ADDRESS}:{self.server_port}/"
        self.hosts = {f"{name}:{self.server_port}" for name in (ADDRESS, "localhost")}

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A browser that goes away in the middle of an answer is no error."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    server: PageServer
    server_version = "gancore"
    sys_version = ""

    def do_GET(self) -> None:
        # A page of another site may resolve its own name to this machine; it then asks under that name.
        if self.headers.get("Host", "") not in self.server.hosts:
            self._answer(HTTPStatus.FORBIDDEN, b"unknown host", "text/plain")
            return
        try:
            if self.path == "/":
                self._answer(HTTPStatus.OK, self.server.page.page(), "text/html")
            elif self.path == "/state.json":
                self._answer(HTTPStatus.OK, json.dumps(self.server.page.state()).encode(), "application/json")
            else:
                self._answer(HTTPStatus.NOT_FOUND, b"not found", "text/plain")
        except (GancoreError, FileNotFoundError) as error:
            self._answer(HTTPStatus.SERVICE_UNAVAILABLE, str(error).encode(), "text/plain")

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: requests come every two seconds."""

    def _answer(self, status: HTTPStatus, body: bytes, kind: str) -> None:
        self.send_response(status)
        for name, value in (
            ("Content-Type", f"{kind}; charset=utf-8"),
            ("Content-Length", str(len(body))),
            ("Cache-Control", "no-store"),
            ("Content-Security-Policy", "frame-ancestors 'none'"),
            ("Cross-Origin-Resource-Policy", "same-origin"),
            ("X-Content-Type-Options", "nosniff"),
            ("Referrer-Policy", "no-referrer"),
        ):
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)
