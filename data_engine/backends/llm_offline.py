"""vLLM in the process of a GPU worker: no server, the batch is the concurrency."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from data_engine.backends.llm_sampling import ChatRequest, Completion, Prompt, Sampling
from data_engine.core.errors import ConfigError, MissingExtraError, RecordError


class OfflineModel:
    """Loads a checkpoint with `vllm.LLM`; see `LanguageModel`.

    Args:
        model: Folder of a checkpoint, or its name on a hub.
        revision: Of the checkpoint on the hub; empty for a folder.
        sampling: How tokens are drawn.
        device: `cuda` or `cpu`, which the installed vLLM must be built for.
        engine: Further arguments of `vllm.LLM`, such as tensor_parallel_size and max_model_len.
    """

    def __init__(self, model: str, revision: str, sampling: Sampling, device: str, engine: Mapping[str, Any]) -> None:
        self._model, self._revision, self._sampling = model, revision, sampling
        self._device, self._engine = device, dict(engine)
        self._llm: Any = None

    def open(self) -> None:
        """Loads the weights.

        Raises:
            MissingExtraError: vLLM is not installed.
            ConfigError: It is built for another device.
        """
        try:
            from vllm import LLM
        except ImportError as error:
            raise MissingExtraError("vllm", "llm-offline", "a language model without a server") from error
        from vllm.platforms import current_platform

        built_for = current_platform.device_type
        if built_for != self._device:
            raise ConfigError(f"llm back end 'vllm': device is {self._device}, the installed vLLM is for {built_for}")
        self._llm = LLM(model=self._model, revision=self._revision or None, **{"seed": 0, **self._engine})

    def close(self) -> None:
        """Frees the weights."""
        self._llm = None

    def chat(self, requests: Sequence[ChatRequest]) -> list[str | RecordError]:
        """Returns the text of each answer."""
        from vllm import SamplingParams
        from vllm.sampling_params import StructuredOutputsParams

        parameters = [
            SamplingParams(
                seed=r.seed, structured_outputs=StructuredOutputsParams(json=dict(r.schema)), **self._drawn()
            )
            for r in requests
        ]
        outputs = self._llm.chat([list(r.messages) for r in requests], parameters, use_tqdm=False)
        return [output.outputs[0].text for output in outputs]

    def complete(
        self, prompts: Sequence[Prompt], seeds: Sequence[int], stop_token_ids: Sequence[int] = ()
    ) -> list[Completion | RecordError]:
        """Returns how the model goes on after each prompt, special and audio tokens spelled out."""
        from vllm import SamplingParams

        tokenizer = self._llm.get_tokenizer()
        ids = [
            tokenizer.encode(prompt, add_special_tokens=False) if isinstance(prompt, str) else [int(i) for i in prompt]
            for prompt in prompts
        ]
        spelled = {"skip_special_tokens": False, "spaces_between_special_tokens": False}
        stops = [int(i) for i in stop_token_ids]
        parameters = [SamplingParams(seed=seed, stop_token_ids=stops, **spelled, **self._drawn()) for seed in seeds]
        outputs = self._llm.generate([{"prompt_token_ids": i} for i in ids], parameters, use_tqdm=False)
        return [Completion(output.outputs[0].text, tuple(output.outputs[0].token_ids)) for output in outputs]

    def _drawn(self) -> dict[str, Any]:
        drawn = self._sampling
        return {"temperature": drawn.temperature, "top_p": drawn.top_p, "max_tokens": drawn.max_tokens}
