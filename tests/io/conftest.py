"""An S3-compatible server that runs for real, and a proxy before it that can break requests."""

import uuid

import pytest

from tests.io.faults import FaultyProxy

ACCESS_KEY, SECRET_KEY = "AKIAQ7TESTONLYTEST42", "not-a-secret/but+looks/like-one-0123456789"
BUCKET = "engine"
QUICK = {
    "retry": {"first_seconds": 0.01, "longest_seconds": 0.05, "attempt_seconds": 30},
    "config_kwargs": {"read_timeout": 0.4, "connect_timeout": 2},
}
"""Storage options for tests with faults."""


@pytest.fixture(scope="session")
def s3_server():
    """(host, port) of a moto server in a thread of this test process."""
    import logging

    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    yield server.get_host_and_port()
    server.stop()


@pytest.fixture
def s3(s3_server, monkeypatch):
    """URI of a folder of its own on the S3 server, which the environment points to."""
    import boto3

    for name in ("AWS_ENDPOINT_URL_S3", "AWS_SESSION_TOKEN", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    settings = {
        "AWS_ENDPOINT_URL": f"http://{s3_server[0]}:{s3_server[1]}", "AWS_ACCESS_KEY_ID": ACCESS_KEY,
        "AWS_SECRET_ACCESS_KEY": SECRET_KEY, "AWS_DEFAULT_REGION": "us-east-1", "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_CONFIG_FILE": "/dev/null", "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
    }  # fmt: skip
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    boto3.session.Session().client("s3").create_bucket(Bucket=BUCKET)
    return f"s3://{BUCKET}/{uuid.uuid4().hex[:12]}"


@pytest.fixture(scope="session")
def shared_proxy(s3_server):
    """A proxy before the server."""
    proxy = FaultyProxy(s3_server)
    yield proxy
    proxy.close()


@pytest.fixture
def proxy(shared_proxy, s3):
    """The proxy, counting from one and breaking nothing yet."""
    shared_proxy.reset()
    yield shared_proxy
    shared_proxy.reset()


@pytest.fixture
def faulty(proxy):
    """Options of a storage that goes through the proxy and loses no time."""
    return {**QUICK, "endpoint_url": proxy.url}
