"""The server: for this computer alone, and a sentence for whatever is wrong."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

import tinygrad_rnn as tr
from tinygrad_rnn.cli.main import main
from tinygrad_rnn.errors import InputError
from tinygrad_rnn.explore import server as module
from tinygrad_rnn.explore.server import HOST, Server, _one_run, open_server

Answer = tuple[int, dict[str, str], bytes]


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with open_server(0) as found:
        thread = threading.Thread(target=found.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield found
        found.shutdown()
        thread.join()


def ask(server: Server, path: str, method: str = "GET", **headers: str) -> Answer:
    connection = http.client.HTTPConnection(HOST, server.server_address[1], timeout=30)
    connection.request(method, path, headers={name.replace("_", "-"): value for name, value in headers.items()})
    answer = connection.getresponse()
    body = answer.read()
    connection.close()
    return answer.status, dict(answer.getheaders()), body


def test_the_page_and_all_that_it_names_is_served(server: Server) -> None:
    status, headers, body = ask(server, "/")
    assert status == 200 and headers["Content-Type"] == "text/html; charset=utf-8"
    named = re.findall(r'(?:src|href)="([\w.]+)"', body.decode())
    assert {"style.css", "app.js"} <= set(named)
    for name in named:
        status, headers, body = ask(server, f"/{name}")
        assert status == 200 and len(body) > 100
        assert headers["Content-Type"].startswith("text/css" if name.endswith("css") else "text/javascript")


def test_it_listens_to_this_computer_alone(server: Server) -> None:
    assert server.server_address[0] == "127.0.0.1"
    assert server.url == f"http://127.0.0.1:{server.server_address[1]}/"


@pytest.mark.parametrize("path", ["/", "/app.js", "/answer?steps=2", "/answer?steps=0", "/none"])
def test_every_answer_carries_the_policy(server: Server, path: str) -> None:
    _, headers, _ = ask(server, path)
    policy = headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy and "script-src 'self';" in policy and "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy
    assert headers["X-Content-Type-Options"] == "nosniff"


FOREIGN = ["evil.example", "evil.example:{port}", "127.0.0.1", "127.0.0.1:1", "[::1]:{port}", ""]


@pytest.mark.parametrize("host", FOREIGN)
@pytest.mark.parametrize("path", ["/", "/answer?steps=2", "/train"])
def test_a_foreign_host_is_refused(server: Server, host: str, path: str) -> None:
    status, _, body = ask(server, path, Host=host.format(port=server.server_address[1]))
    assert status == 421 and body.startswith(b"this page is at http://127.0.0.1:")


def test_its_own_two_names_are_answered(server: Server) -> None:
    for name in ("127.0.0.1", "localhost"):
        assert ask(server, "/", Host=f"{name}:{server.server_address[1]}")[0] == 200


def test_two_hosts_or_none_are_refused(server: Server) -> None:
    right = f"Host: 127.0.0.1:{server.server_address[1]}\r\n"
    for hosts in (right + "Host: evil.example\r\n", ""):
        with socket.create_connection((HOST, server.server_address[1]), timeout=30) as connection:
            connection.sendall(f"GET / HTTP/1.1\r\n{hosts}Connection: close\r\n\r\n".encode())
            assert connection.makefile("rb").readline().split()[1] == b"421"


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
def test_another_site_gets_the_page_by_a_link_and_nothing_else(server: Server, site: str) -> None:
    assert ask(server, "/", Sec_Fetch_Site=site)[0] == 200
    for path in ("/answer?steps=2", "/train?steps=2", "/app.js"):
        status, _, body = ask(server, path, Sec_Fetch_Site=site)
        assert (status, body) == (403, b"other sites get nothing from here\n")


def test_an_answer_is_json(server: Server) -> None:
    status, headers, body = ask(server, "/answer?cell=gru&steps=3&k2=2")
    assert status == 200 and headers["Content-Type"] == "application/json; charset=utf-8"
    assert json.loads(body)["settings"]["cell"] == "gru"
    assert ask(server, "/answer?cell=gru&steps=3&k2=2")[2] == body


@pytest.mark.parametrize("query", ["steps=99", "cell=x", "scale=nan", "depth=1", "steps", "steps=3&steps=3"])
@pytest.mark.parametrize("path", ["/answer", "/train"])
def test_a_bad_value_gets_a_sentence_and_400(server: Server, path: str, query: str) -> None:
    status, headers, body = ask(server, f"{path}?{query}")
    assert status == 400 and headers["Content-Type"] == "text/plain; charset=utf-8"
    assert body.decode().count("\n") == 1 and b"Traceback" not in body


STRANGE = ["/none", "/../settings.py", "/%2e%2e/settings.py", "/page/app.js", "/app.js/", "/index", "/."]


@pytest.mark.parametrize("path", STRANGE)
def test_nothing_else_is_served(server: Server, path: str) -> None:
    assert ask(server, path)[0] == 404


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS"])
def test_it_only_answers_questions(server: Server, method: str) -> None:
    assert ask(server, "/answer", method)[0] == 501


def test_a_connection_answers_again_also_after_a_mistake(server: Server) -> None:
    connection = http.client.HTTPConnection(HOST, server.server_address[1], timeout=30)
    for path, status in [("/answer?steps=2", 200), ("/answer?steps=0", 400), ("/none", 404), ("/", 200)]:
        connection.request("GET", path)
        answer = connection.getresponse()
        assert (answer.status, len(answer.read()) > 0) == (status, True)
    connection.close()


def test_a_bug_gets_500_and_a_sentence(server: Server, monkeypatch, capsys) -> None:
    def broken(settings: object) -> bytes:
        raise ZeroDivisionError("oh")

    told = threading.Event()
    shown = Server.handle_error
    monkeypatch.setattr(module, "answered", broken)
    monkeypatch.setattr(Server, "handle_error", lambda *args: (shown(*args), told.set()))
    status, _, body = ask(server, "/answer?steps=2")
    assert (status, body) == (500, b"this is a bug: the terminal of tinygrad-rnn explore says more\n")
    assert told.wait(5) and "ZeroDivisionError: oh" in capsys.readouterr().err


def events(body: bytes) -> list[tuple[str, dict]]:
    found = re.findall(r"event: (\w+)\ndata: (.*)\n\n", body.decode())
    return [(name, json.loads(data)) for name, data in found]


def test_a_training_run_is_a_stream_of_events(server: Server) -> None:
    status, headers, body = ask(server, "/train?steps=2&hidden=2")
    assert status == 200 and headers["Content-Type"].startswith("text/event-stream")
    *losses, (name, end) = events(body)
    assert [told["step"] for _, told in losses] == list(range(0, 401, 10)) and {kind for kind, _ in losses} == {"loss"}
    assert name == "end" and end["sentence"].startswith("After 400 steps")


def test_one_run_at_a_time_and_a_browser_that_goes_ends_it(server: Server) -> None:
    with _one_run:  # as a run has it that takes longer than another one waits
        status, _, body = ask(server, "/train?steps=2")
        assert (status, body) == (503, b"another training run is under way\n")
    connection = http.client.HTTPConnection(HOST, server.server_address[1], timeout=30)
    connection.request("GET", "/train?cell=lstm&steps=32")
    answer = connection.getresponse()
    assert answer.readline() == b"event: loss\n"
    assert _one_run.locked()
    answer.close()
    connection.close()
    assert ask(server, "/train?steps=2")[0] == 200


def test_a_port_that_is_taken_is_one_line(server: Server, capsys) -> None:
    port = server.server_address[1]
    with pytest.raises(InputError, match=f"port {port} of 127.0.0.1: "):
        open_server(port)
    assert main(["explore", "--no-browser", "--port", str(port)]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and said.endswith("choose another port (--port)\n")


@pytest.mark.skipif(os.name != "posix", reason="signals")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_command_says_where_the_page_is_and_ends_cleanly(number: signal.Signals) -> None:
    command = [sys.executable, "-W", "error", "-m", "tinygrad_rnn", "explore", "--port", "0", "--no-browser"]
    environment = os.environ | {"PYTHONPATH": str(Path(tr.__file__).parents[1])}
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        said = process.stdout.readline()
        host, port = re.fullmatch(r"The page is at http://([\d.]+):(\d+)/  \(Ctrl-C ends\)\n", said).groups()
        connection = http.client.HTTPConnection(host, int(port), timeout=30)
        connection.request("GET", "/")
        assert connection.getresponse().status == 200  # and it stays open
        process.send_signal(number)
        _, errors = process.communicate(timeout=30)
        connection.close()
    assert (process.returncode, errors) == ((0, "") if number == signal.SIGINT else (143, "tinygrad-rnn: stopped\n"))


@pytest.mark.parametrize(("screen", "opened"), [({}, 0), ({"DISPLAY": ":0"}, 1), ({"WAYLAND_DISPLAY": "w"}, 1)])
def test_a_browser_is_opened_where_there_is_a_screen(screen: dict[str, str], opened: int, monkeypatch) -> None:
    found = threading.Event()
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    for name, value in screen.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(module.sys, "platform", "linux")
    monkeypatch.setattr(module.webbrowser, "open", lambda url: found.set())
    monkeypatch.setattr(module.Server, "serve_forever", lambda self: found.wait(5 if opened else 0.1))
    assert module.serve(0, browser=True) == 0
    assert found.is_set() == bool(opened)
    found.clear()
    monkeypatch.setattr(module.Server, "serve_forever", lambda self: found.wait(0.1))
    assert module.serve(0, browser=False) == 0 and not found.is_set()
