"""`make bench-serving`: 64 prompts at a time through the engine's client and a vLLM server, over vLLM's offline loop.

Both draw from the speaker LM with the same seeds and limits, in turn, on the same machine, while the other is idle.
"""

import argparse
import json
import os
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

from data_engine.backends.llm_sampling import Sampling
from data_engine.backends.llm_served import ServedModel
from data_engine.backends.model_server import Endpoint
from data_engine.io.retry import Backoff
from tests.serving.checkpoint import write_checkpoint
from tests.serving.conftest import ENVIRONMENT, PYTHON, Served

CHECKOUT = Path(__file__).parents[2]
PROMPTS, PROMPT_IDS, MAX_TOKENS, LENGTH, ROUNDS = 64, 40, 200, 1024, 5


class Offline:
    """The other loop in a process of its own."""

    def __init__(self, folder, prompts, scratch):
        file = scratch / "prompts.json"
        file.write_text(json.dumps(prompts))
        command = [str(PYTHON), str(Path(__file__).with_name("offline_loop.py")), str(folder), str(file)]
        self._process = subprocess.Popen(
            [*command, str(MAX_TOKENS), str(LENGTH)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            stderr=subprocess.DEVNULL, env={**os.environ, **ENVIRONMENT},
        )  # fmt: skip
        self._until("READY")

    def run(self):
        """Returns tokens per second of one pass."""
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        done = json.loads(self._until("DONE "))
        return done["tokens"] / done["seconds"], done["tokens"]

    def close(self):
        self._process.stdin.close()
        self._process.wait(60)

    def _until(self, word):
        for line in self._process.stdout:
            if line.startswith(word):
                return line.removeprefix(word)
        raise RuntimeError("vLLM's offline loop ended")


def served_pass(model, prompts):
    """Returns tokens per second of one pass through the server."""
    started = time.perf_counter()
    done = model.complete(prompts, list(range(len(prompts))))
    seconds = time.perf_counter() - started
    tokens = sum(len(each.token_ids) for each in done)
    return tokens / seconds, tokens


def main():
    parser = argparse.ArgumentParser(description="Throughput of a served model over vLLM's offline loop.")
    parser.add_argument("--model", type=Path, help="Checkpoint; default the shipped speaker LM, else a random one.")
    chosen = parser.parse_args().model or CHECKOUT / "data_engine" / "assets" / "speaker_lm"
    prompts = [[1, *((7 * n + 13 * k) % 500 + 10 for k in range(PROMPT_IDS))] for n in range(PROMPTS)]
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        folder = chosen if chosen.is_dir() else write_checkpoint(scratch)
        offline = Offline(folder, prompts, scratch)
        server = Served(folder, scratch / "log", length=LENGTH).wait()
        sampling = Sampling(temperature=1.0, top_p=1.0, max_tokens=MAX_TOKENS)
        endpoint = Endpoint("small", "r1", server.url, "NO_KEY", PROMPTS, 600.0, 5.0, Backoff(3, 0.5))
        model = ServedModel(endpoint, sampling)
        try:
            model.open()
            pairs = [(served_pass(model, prompts), offline.run()) for _ in range(ROUNDS + 1)][1:]
        finally:
            model.close()
            server.kill()
            offline.close()
    ours, theirs = (statistics.median(pair[side][0] for pair in pairs) for side in (0, 1))
    ratio = statistics.median(pair[0][0] / pair[1][0] for pair in pairs)
    print("| measure | peer | ours | peer's | ratio | asked |\n|---|---|---|---|---|---|")
    said = chosen.name if folder == chosen else "a tiny random Llama"
    print(f"| {PROMPTS} prompts of {said} at once ({pairs[0][0][1]} tokens) | vLLM's offline loop ({pairs[0][1][1]}) "
          f"| {ours:.0f} tokens/s | {theirs:.0f} | {ratio:.0%} | >= 90 % |")  # fmt: skip


if __name__ == "__main__":
    main()
