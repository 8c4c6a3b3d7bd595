"""A proxy in front of an object store that breaks the request one names, and lets everything else through."""

import http.client
import threading
import time
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

KINDS = ("500", "503", "refused", "lost", "truncated", "late")
"""What may happen to a request.

500, 503: Answered with an error, never seen by the store.
refused: The connection ends without an answer; the store never saw the request.
lost: The store has done what was asked, but the answer is lost.
truncated: The answer breaks off in the middle of its head or body.
late: The client gives up waiting; the store does what was asked after that.
"""

REFUSALS = ("denied", "expired")
"""What no retry mends: an object one may not have, credentials that are no longer good."""

_ERRORS = {
    "500": (500, "InternalError", "We encountered an internal error. Please try again."),
    "503": (503, "SlowDown", "Please reduce your request rate."),
    "denied": (403, "AccessDenied", "Access Denied"),
    "expired": (400, "ExpiredToken", "The provided token has expired."),
}
_CONNECTION_HEADERS = {"connection", "keep-alive", "transfer-encoding", "content-length", "te", "trailer", "upgrade"}


def once(kind, at):
    """Returns the faults in which an operation meets `kind` at request `at`.

    Who finds a kept connection closed sends the request again at once, on a new one, and so meets it twice.
    """
    hit = {at, at + 1} if kind in ("refused", "lost", "truncated") else {at}
    return lambda number: kind if number in hit else None


class FaultyProxy:
    """Forwards HTTP requests to a store, counts them, and breaks those that `faults` names by number.

    Args:
        upstream: (host, port) of the store.
        late_seconds: How long a late request is held back; more than the client waits.

    Attributes:
        requests: (method, path) of each request since `reset`, in order of arrival; the first is number 1.
        faults: Number of a request -> what happens to it, None for nothing.
        watch: Called without arguments after each request that may have changed the store.
    """

    def __init__(self, upstream, late_seconds=1.0):
        self.upstream, self.late_seconds = upstream, late_seconds
        self._lock = threading.Lock()
        self.reset()
        self._server = _Server(("127.0.0.1", 0), _handler(self))
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def reset(self, faults=lambda number: None, watch=None):
        """Forgets what was counted and breaks requests as `faults` says from now on."""
        with self._lock:
            self.requests, self.faults, self.watch = [], faults, watch

    def take(self, method, path):
        """Counts a request and returns what is to happen to it, None for nothing."""
        with self._lock:
            self.requests.append((method, path))
            return self.faults(len(self.requests))

    def observe(self, method):
        """Lets the watcher see the store after a change."""
        if self.watch is not None and method in ("PUT", "POST", "DELETE"):
            self.watch()

    def close(self):
        """Stops serving."""
        self._server.shutdown()
        self._server.server_close()


class _Server(ThreadingHTTPServer):
    def handle_error(self, request, client_address):
        """Says nothing: clients that give up are what this is for."""


def _handler(proxy):
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True  # head and body are two writes

        def log_message(self, *args):
            pass

        def do_GET(self):
            body = _body(self)
            fault = proxy.take(self.command, self.path)
            if fault in _ERRORS:
                self._send(*_error(*_ERRORS[fault]))
            elif fault == "refused":
                self.close_connection = True
            else:
                self._pass_on(body, fault)

        do_PUT = do_POST = do_DELETE = do_HEAD = do_GET

        def _pass_on(self, body, fault):
            if fault == "late":
                time.sleep(proxy.late_seconds)
            status, headers, content = _forward(proxy.upstream, self, body)
            proxy.observe(self.command)
            if fault == "lost":
                self.close_connection = True
            elif fault == "truncated":
                self._break_off(status, headers, content)
            else:
                with suppress(OSError):  # who gave up waiting is no longer there
                    self._send(status, headers, content)

        def _send(self, status, headers, content):
            self.send_response_only(status)
            for name, value in headers:
                self.send_header(name, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(content)

        def _break_off(self, status, headers, content):
            self.close_connection = True
            if self.command == "HEAD" or not content:
                self.wfile.write(f"HTTP/1.1 {status} OK\r\nETag: ".encode())
            else:
                self._send(status, headers, content[: len(content) // 2])

    return Handler


def _body(request):
    if request.headers.get("Transfer-Encoding", "").lower() == "chunked":
        pieces = []
        while size := int(request.rfile.readline().split(b";")[0], 16):
            pieces.append(request.rfile.read(size))
            request.rfile.readline()
        while request.rfile.readline().strip():
            pass
        return b"".join(pieces)
    return request.rfile.read(int(request.headers.get("Content-Length", 0)))


def _forward(upstream, request, body):
    connection = http.client.HTTPConnection(*upstream, timeout=30)
    headers = {k: v for k, v in request.headers.items() if k.lower() not in {*_CONNECTION_HEADERS, "expect"}}
    connection.request(request.command, request.path, body, headers)
    response = connection.getresponse()
    content = response.read()
    length = response.headers.get("Content-Length") if request.command == "HEAD" else str(len(content))
    kept = [(k, v) for k, v in response.getheaders() if k.lower() not in _CONNECTION_HEADERS]
    connection.close()
    return response.status, [*kept, ("Content-Length", length or "0")], content


def _error(status, code, message):
    content = f"<Error><Code>{code}</Code><Message>{message}</Message></Error>".encode()
    return status, [("Content-Type", "application/xml"), ("Content-Length", str(len(content)))], content
