"""The server of the page: the standard library's, on 127.0.0.1 alone, for whoever asks for it by that name.

What a browser holds open of another site must learn nothing here and start nothing: another name in `Host` is refused
(a name that somebody's DNS points at 127.0.0.1), and so is a request that another site makes. The page may load nothing
but what comes from here.
"""

from __future__ import annotations

import json
import os
import select
import socket
import sys
import threading
import webbrowser
from functools import lru_cache
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.resources import files
from urllib.parse import urlsplit

from threadpoolctl import threadpool_limits

from tinygrad_rnn.errors import InputError
from tinygrad_rnn.explore.answer import answer
from tinygrad_rnn.explore.settings import Settings, settings_of
from tinygrad_rnn.explore.training import event, run

HOST = "127.0.0.1"
KINDS = {"html": "text/html", "css": "text/css", "js": "text/javascript"}
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}

_one_at_a_time = threading.Lock()  # two answers at once would only make both slow
_one_run = threading.Lock()


@lru_cache(64)
def answered(settings: Settings) -> bytes:
    """The answer as JSON."""
    return json.dumps(answer(settings), separators=(",", ":"), allow_nan=False).encode()


class Refused(Exception):
    """A request that gets a status and a sentence."""

    def __init__(self, status: HTTPStatus, sentence: str) -> None:
        super().__init__(sentence)
        self.status = status


class Handler(BaseHTTPRequestHandler):
    """Answers one connection."""

    protocol_version = "HTTP/1.1"
    server_version, sys_version = "tinygrad-rnn", ""
    timeout = 60  # seconds after which a silent connection is closed
    wbufsize = -1  # head and body leave together: in two pieces, the second would wait until the first is confirmed
    _has_answered = False

    def do_GET(self) -> None:
        """Answer a request; what is wrong with it gets a sentence."""
        self._has_answered = False
        try:
            self._check_who_asks()
            address = urlsplit(self.path)
            if address.path == "/answer":
                settings = settings_of(address.query)
                with _one_at_a_time:
                    body = answered(settings)
                self._send(HTTPStatus.OK, "application/json", body)
            elif address.path == "/train":
                self._train(settings_of(address.query))
            else:
                kind, body = _file(address.path)
                self._send(HTTPStatus.OK, kind, body)
        except InputError as error:
            self._send(HTTPStatus.BAD_REQUEST, "text/plain", f"{error}\n".encode())
        except Refused as error:
            self._send(error.status, "text/plain", f"{error}\n".encode())
        except OSError:  # the browser has gone
            raise
        except Exception:
            if not self._has_answered:
                sentence = b"this is a bug: the terminal of tinygrad-rnn explore says more\n"
                self._send(HTTPStatus.INTERNAL_SERVER_ERROR, "text/plain", sentence)
                self.wfile.flush()
            raise

    def _train(self, settings: Settings) -> None:
        """A training run as a stream of events, until it ends or the browser has gone."""
        if not _one_run.acquire(timeout=2):  # the one that was stopped notices at its next step
            raise Refused(HTTPStatus.SERVICE_UNAVAILABLE, "another training run is under way")
        try:
            self._head(HTTPStatus.OK, {"Content-Type": "text/event-stream; charset=utf-8", "Connection": "close"})
            for name, told in run(settings, is_wanted=self._is_there):
                self.wfile.write(event(name, told))
                self.wfile.flush()
        finally:
            _one_run.release()

    def _is_there(self) -> bool:
        """Whether the browser still holds the connection open."""
        readable, _, _ = select.select([self.connection], [], [], 0)
        return not readable or bool(self.connection.recv(1, socket.MSG_PEEK))

    def _check_who_asks(self) -> None:
        """Raise Refused for a name that is not this computer's, and for other sites."""
        port = self.server.server_address[1]  # type: ignore[index]  # (host, port)
        hosts = self.headers.get_all("Host") or [""]
        right = {f"{name}:{port}" for name in (HOST, "localhost")} | ({HOST, "localhost"} if port == 80 else set())
        if len(hosts) > 1 or hosts[0] not in right:
            sentence = f"this page is at http://{HOST}:{port}/ alone, not at {hosts[0]!r:.80}"
            raise Refused(HTTPStatus.MISDIRECTED_REQUEST, sentence)
        if self.headers.get("Sec-Fetch-Site") in ("cross-site", "same-site") and self.path != "/":
            raise Refused(HTTPStatus.FORBIDDEN, "other sites get nothing from here")

    def _send(self, status: HTTPStatus, kind: str, body: bytes) -> None:
        self._head(status, {"Content-Type": f"{kind}; charset=utf-8", "Content-Length": str(len(body))})
        self.wfile.write(body)

    def _head(self, status: HTTPStatus, headers: dict[str, str]) -> None:
        self._has_answered = True
        self.send_response(status)
        for name, value in {**HEADERS, **headers}.items():
            self.send_header(name, value)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Nothing: the terminal is for the address and for errors."""


class Server(ThreadingHTTPServer):
    """On this computer alone; a connection that is open does not keep it from ending."""

    daemon_threads = True
    allow_reuse_address = os.name == "posix"  # elsewhere it would let two servers have one port

    def handle_error(self, request: object, client_address: object) -> None:
        """A browser that has gone is no error."""
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)  # type: ignore[arg-type]

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.server_address[1]}/"


def _file(path: str) -> tuple[str, bytes]:
    """The kind and the bytes of one file of the page."""
    name = "index.html" if path == "/" else path[1:]
    page = {entry.name: entry for entry in files("tinygrad_rnn.explore").joinpath("page").iterdir()}
    if name not in page:
        raise Refused(HTTPStatus.NOT_FOUND, f"there is no {path!r:.80} here")
    return KINDS[name.rpartition(".")[2]], page[name].read_bytes()


def open_server(port: int) -> Server:
    """A server at a port of 127.0.0.1, any free one for 0; it does not answer yet. Raises InputError if it is taken."""
    try:
        return Server((HOST, port), Handler)
    except OSError as error:
        raise InputError(f"port {port} of {HOST}: {error.strerror}", hint="choose another port") from None


def _has_browser() -> bool:
    """Whether there is a screen to open a browser on; one in the terminal would be in the way."""
    return sys.platform in ("darwin", "win32") or bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))


def serve(port: int, *, browser: bool) -> int:
    """Serve the page until Ctrl-C; returns the exit status."""
    with open_server(port) as server, threadpool_limits(limits=1):  # products so small are slower on several
        print(f"The page is at {server.url}  (Ctrl-C ends)", flush=True)
        if browser and _has_browser():
            threading.Thread(target=webbrowser.open, args=(server.url,), daemon=True).start()
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            print()
    return 0
