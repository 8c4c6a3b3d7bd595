"""vLLM's own offline loop, run by the interpreter of .venv-serving: a line in, one timed `generate` of all prompts."""

import json
import sys
import time
from pathlib import Path


def main():
    folder, prompts_file, max_tokens, max_model_len = sys.argv[1:5]
    prompts = json.loads(Path(prompts_file).read_text(encoding="utf-8"))
    from vllm import LLM, SamplingParams

    model = LLM(model=folder, dtype="float32", max_model_len=int(max_model_len), max_num_seqs=64, enforce_eager=True,
                enable_prefix_caching=False, seed=0, max_num_batched_tokens=8192)  # fmt: skip
    drawn = [SamplingParams(seed=n, temperature=1.0, max_tokens=int(max_tokens)) for n in range(len(prompts))]
    print("READY", flush=True)
    for _ in sys.stdin:
        started = time.perf_counter()
        outputs = model.generate([{"prompt_token_ids": ids} for ids in prompts], drawn, use_tqdm=False)
        seconds = time.perf_counter() - started
        tokens = sum(len(output.outputs[0].token_ids) for output in outputs)
        print(f"DONE {json.dumps({'tokens': tokens, 'seconds': seconds})}", flush=True)


if __name__ == "__main__":
    main()
