"""A run record with every kind of number, and readers of what was exported."""

import gzip
import re
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


def stage(name, seconds_in=0.0, seconds_out=0.0, busy=0.0, rows=(0, 0), rejects=None, unused=None):
    rejects, unused = rejects or {}, unused or {}
    return {
        "stage": name, "rows_in": rows[0], "rows_out": rows[1], "rejected": sum(rejects.values()),
        "unused": sum(unused.values()), "seconds_in": seconds_in, "seconds_out": seconds_out, "wall_seconds": busy,
        "reject_codes": rejects, "unused_reasons": unused, "metrics": {},
    }  # fmt: skip


RUN = {
    "state": "incomplete",
    "pipelines": {
        "curate": {
            "shards": {"planned": 3, "committed": 2, "dead": 1},
            "wall_seconds": 41.5,
            "stages": [
                stage("decode", 0.0, 3600.0, 36.0, (5, 3), {"NOT_AUDIO": 1, "DUPLICATE": 1}),
                stage("cut", 3600.0, 1800.5, 0.25, (3, 40)),
                stage("voices", 1800.5, 12.0, 0.5, (40, 2), unused={"not_best": 38}),
            ],
        },
        "synthesize": {
            "shards": {"planned": 1, "committed": 1, "dead": 0},
            "wall_seconds": 2.0,
            "stages": [stage("script", busy=1.0, rows=(12, 12))],
        },
    },
    "tables": {
        "segments": [{"rows": 25, "seconds": 1000.25}, {"rows": 15, "seconds": 800.25}],
        "scripts": [{"rows": 12, "seconds": None}],
    },
}

SERIES = re.compile(r"([a-zA-Z_:][a-zA-Z0-9_:]*)\{(.*)\} (\S+)")
LABEL = re.compile(r'([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\\n]|\\\\|\\"|\\n)*)"(?:,|$)')
UNESCAPED = {"\\\\": "\\", '\\"': '"', "\\n": "\n"}


def parse_prometheus(text):
    """Returns {(name, labels): value} and {name: type}; every line must be what the text format 0.0.4 allows."""
    values, types, helped = {}, {}, set()
    assert text.endswith("\n")
    for line in text.split("\n")[:-1]:
        if line.startswith("# HELP "):
            name = line.split(" ", 3)[2]
            assert name not in helped, "a metric's lines must be together"
            helped.add(name)
        elif line.startswith("# TYPE "):
            _, _, name, kind = line.split(" ")
            assert name in helped and kind in ("counter", "gauge")
            types[name] = kind
        else:
            name, inside, value = SERIES.fullmatch(line).groups()
            assert list(types)[-1] == name, "samples follow their TYPE line"
            labels = LABEL.findall(inside)
            assert "".join(f'{k}="{v}",' for k, v in labels)[:-1] == inside
            key = name, frozenset((k, re.sub(r"\\.", lambda m: UNESCAPED[m[0]], v)) for k, v in labels)
            assert key not in values, "a series may appear once"
            values[key] = float(value)
    return values, types


@contextmanager
def collector(answer=200):
    """Yields (URL, list of export requests) of an OTLP/HTTP collector on this machine."""
    from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

    received = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers["Content-Length"]))
            body = gzip.decompress(body) if self.headers.get("Content-Encoding") == "gzip" else body
            assert self.headers["Content-Type"] == "application/x-protobuf"
            received.append((self.path, ExportMetricsServiceRequest.FromString(body)))
            self.send_response(answer)
            self.end_headers()

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", received
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def exported(request):
    """Returns {(name, labels): value} and {name: (is counter, unit)} of an export request."""
    values, kinds = {}, {}
    for metric in request.resource_metrics[0].scope_metrics[0].metrics:
        counter = metric.HasField("sum")
        points = metric.sum.data_points if counter else metric.gauge.data_points
        kinds[metric.name] = counter, metric.unit
        for point in points:
            labels = frozenset((a.key, a.value.string_value) for a in point.attributes)
            number = point.as_double if point.HasField("as_double") else point.as_int
            values[metric.name, labels] = number
    return values, kinds


def resource(request):
    return {a.key: a.value.string_value for a in request.resource_metrics[0].resource.attributes}
