"""Greedy decoding of FunASR's loaded models, many clips at a time: what `generate` does, clip by clip the same.

`generate` gives no posteriors, drops a batch in which nothing fires, mixes padding into the predictor of Paraformer,
and swaps weights and peaks when it asks that for times. So the modules of the model are called here one by one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

from data_engine.backends.funasr_words import is_tag, piece_words, rich_text, spans_of_peaks, spans_of_weights
from data_engine.backends.protocols import Transcript, Word
from data_engine.core.errors import ConfigError

Spans = list[tuple[int, int]]

_QUERIES = 4
"""States before those of the sound in SenseVoice: language, emotion, event, text norm."""
_NOT_SPOKEN = frozenset({"<s>", "</s>", "<unk>", "<OOV>", "<blank>"})
_SAMPLES_PER_MS = 16


class Decoder(Protocol):
    """What hears clips, given as normalised stacked filterbanks [frames, features]."""

    kind: str
    languages: tuple[str, ...]
    finds_language: bool

    def hear(self, features: Sequence[Any], num_samples: Sequence[int], language: str | None) -> list[Transcript]:
        """Returns a transcript per clip."""
        ...


def decoder_of(loaded: Any, device: str, use_itn: bool, word_times: bool) -> Decoder:
    """Returns the decoder for a loaded `funasr.AutoModel`.

    Raises:
        ConfigError: It is neither an offline Paraformer with predictor and decoder nor a SenseVoiceSmall.
    """
    model, tokenizer = loaded.model, loaded.kwargs.get("tokenizer")
    if loaded.kwargs.get("frontend") is None or tokenizer is None:
        raise ConfigError(f"a FunASR model without frontend or tokenizer cannot transcribe: {type(model).__name__}")
    if hasattr(model, "lid_dict") and hasattr(model, "textnorm_dict"):
        return SenseVoiceDecoder(model, tokenizer, device, use_itn, word_times)
    parts = (getattr(model, "predictor", None), getattr(model, "decoder", None))
    if None not in parts and hasattr(model, "cal_decoder_with_predictor") and not hasattr(model, "encode_chunk"):
        return ParaformerDecoder(model, tokenizer, device, word_times)
    raise ConfigError(f"asr 'funasr' knows offline Paraformers and SenseVoiceSmall, not this {type(model).__name__}")


class ParaformerDecoder:
    """Paraformer, BiCif-, SeACo- and contextual Paraformer, without hot words.

    Times are those of the timestamp predictor where the model has one, else of the predictor that counts tokens.
    """

    kind = "paraformer"
    languages: tuple[str, ...] = ("zh", "en")
    finds_language = False

    def __init__(self, model: Any, tokenizer: Any, device: str, word_times: bool) -> None:
        self._model, self._tokenizer, self._device, self._word_times = model, tokenizer, device, word_times

    def hear(self, features: Sequence[Any], num_samples: Sequence[int], language: str | None) -> list[Transcript]:
        """Returns a transcript per clip; the language is the model's."""
        import torch

        with torch.inference_mode():
            states = _encoded(self._model.encode, features, self._device)
            # The predictor is asked clip by clip: its convolution and LSTM look into the padding of a batch.
            fired = [self._fired(state) for state in states]
            heard = [Transcript("")] * len(states)
            spoken = [number for number, (embeds, _) in enumerate(fired) if len(embeds)]
            scores = self._scores([states[n] for n in spoken], [fired[n][0] for n in spoken]) if spoken else []
            for number, rows in zip(spoken, scores, strict=True):
                heard[number] = self._transcript(rows, states[number], fired[number][1], num_samples[number])
        return heard

    def _fired(self, state: Any) -> tuple[Any, Any]:
        """Returns the acoustic embedding of each token [tokens, size] and the weights of the frames [frames]."""
        import torch

        length = torch.tensor([len(state)], device=self._device)
        embeds, count, weights, _ = self._model.calc_predictor(state[None], length)[:4]
        return embeds[0, : int(count.round())], weights[0].float()

    def _scores(self, states: Sequence[Any], embeds: Sequence[Any]) -> list[Any]:
        """Returns the log posteriors of each clip's tokens, [tokens, vocabulary]."""
        padded, lengths = _padded(states, self._device)
        queries, counts = _padded(embeds, self._device)
        scores = self._model.cal_decoder_with_predictor(padded, lengths, queries, counts)[0]
        return [rows[: len(embed)].float() for rows, embed in zip(scores, embeds, strict=True)]

    def _transcript(self, scores: Any, state: Any, weights: Any, num_samples: int) -> Transcript:
        best, ids = scores.max(dim=-1)
        marks = {self._model.sos, self._model.eos, self._model.blank_id}
        kept = [position for position, token in enumerate(ids.tolist()) if token not in marks]
        tokens = [int(ids[position]) for position in kept]
        spans = self._spans(state, weights, len(ids), num_samples) if self._word_times else []
        text, words = _written(self._tokenizer, tokens, [spans[position] for position in kept] if spans else [])
        return Transcript(text, words, _confidence(best[kept].tolist())) if text else Transcript("")

    def _spans(self, state: Any, weights: Any, count: int, num_samples: int) -> Spans:
        """Returns first sample and the one after the last of each of `count` tokens; none when peaks do not match."""
        import torch

        if not hasattr(getattr(self._model, "predictor", None), "get_upsample_timestamp"):
            return spans_of_weights(weights.cpu().numpy(), count, num_samples)
        from funasr.utils.timestamp_tools import ts_prediction_lfr6_standard

        length, tokens = (torch.tensor([n], device=self._device) for n in (len(state), count))
        found = self._model.calc_predictor_timestamp(state[None], length, tokens)
        _, times = ts_prediction_lfr6_standard(found[2][0].cpu(), found[3][0].cpu(), [str(n) for n in range(count)])
        edges = np.clip(np.asarray(times, np.int64).reshape(-1, 2) * _SAMPLES_PER_MS, 0, num_samples)
        return [(int(start), int(end)) for start, end in edges] if len(edges) == count else []


class SenseVoiceDecoder:
    """SenseVoiceSmall: text by CTC, and before it tags for language, emotion and event."""

    kind = "sensevoice"
    finds_language = True

    def __init__(self, model: Any, tokenizer: Any, device: str, use_itn: bool, word_times: bool) -> None:
        self._model, self._tokenizer, self._device, self._word_times = model, tokenizer, device, word_times
        self._norm = model.textnorm_dict["withitn" if use_itn else "woitn"]
        self.languages = tuple(sorted(set(model.lid_dict) - {"auto", "nospeech"}))
        piece = tokenizer.sp.piece_to_id("<|nospeech|>")
        self._nobody = None if piece == tokenizer.sp.unk_id() else piece

    def hear(self, features: Sequence[Any], num_samples: Sequence[int], language: str | None) -> list[Transcript]:
        """Returns a transcript per clip; without a language the model finds it."""
        import torch

        queries = [self._model.lid_dict[language or "auto"], 1, 2, self._norm]
        with torch.inference_mode():
            asked = self._model.embed(torch.tensor(queries, device=self._device))
            waves = [torch.cat([asked, rows.to(self._device)]) for rows in features]
            scores = [
                self._model.ctc.log_softmax(s[None])[0] for s in _encoded(self._model.encoder, waves, self._device)
            ]
        return [
            self._transcript(rows.float().cpu(), length, language)
            for rows, length in zip(scores, num_samples, strict=True)
        ]

    def _transcript(self, scores: Any, num_samples: int, language: str | None) -> Transcript:
        best, ids = scores.max(dim=-1)
        changed = ids.diff(prepend=ids.new_tensor([-1])) != 0
        fired = (changed & (ids != self._model.blank_id)).nonzero().flatten().tolist()
        rich = rich_text(self._tokenizer.decode([int(ids[frame]) for frame in fired]))
        sound = [frame for frame in fired if frame >= _QUERIES and not is_tag(self._piece(int(ids[frame])))]
        words: tuple[Word, ...] = ()
        if self._word_times and rich.text:
            spans = spans_of_peaks([frame - _QUERIES for frame in sound], num_samples)
            words = piece_words([self._piece(int(ids[frame])) for frame in sound], spans)
        found = None if language else rich.language
        return Transcript(
            rich.text, words, _confidence(best[sound].tolist()) if rich.text else None,
            language=found, language_confidence=_rounded(math.exp(float(best[0]))) if found else None,
            emotion=rich.emotion, events=rich.events or None,
            no_speech=None if self._nobody is None else _rounded(math.exp(float(scores[0, self._nobody]))),
        )  # fmt: skip

    def _piece(self, token: int) -> str:
        return str(self._tokenizer.sp.id_to_piece(token))


def _written(tokenizer: Any, ids: Sequence[int], spans: Spans) -> tuple[str, tuple[Word, ...]]:
    """Returns text and words of a Paraformer's tokens; no words without spans."""
    from funasr.utils.postprocess_utils import sentence_postprocess

    if hasattr(tokenizer, "bpemodel"):
        pieces = [str(tokenizer.sp.id_to_piece(token)) for token in ids]
        return str(tokenizer.decode(list(ids))).strip(), piece_words(pieces, spans) if spans else ()
    tokens = tokenizer.ids2tokens(list(ids))
    spoken = [number for number, token in enumerate(tokens) if token not in _NOT_SPOKEN]
    if not spoken:
        return "", ()
    chosen = [tokens[number] for number in spoken]
    text = str(sentence_postprocess(chosen)[0])
    if not spans:
        return text, ()
    _, times, words = sentence_postprocess(chosen, [list(spans[number]) for number in spoken])
    if len(times) != len(words):
        return text, ()
    return text, tuple(Word(word, a, max(b - a, 0)) for word, (a, b) in zip(words, times, strict=True))


def _padded(rows: Sequence[Any], device: str) -> tuple[Any, Any]:
    """Returns rows [n, size] as one zero-padded tensor [clips, most, size], and their lengths [clips]."""
    import torch

    lengths = torch.tensor([len(row) for row in rows], dtype=torch.int32, device=device)
    return torch.nn.utils.rnn.pad_sequence(list(rows), batch_first=True).to(device), lengths


def _encoded(encode: Any, features: Sequence[Any], device: str) -> list[Any]:
    """Returns the states of each clip, [frames, size], without padding."""
    padded, lengths = _padded(features, device)
    found = encode(padded, lengths)[0]
    return [rows[: len(feature)] for rows, feature in zip(found, features, strict=True)]


def _confidence(log_posteriors: Sequence[float]) -> float | None:
    """Returns the geometric mean of posteriors given as logarithms."""
    if not log_posteriors:
        return None
    return _rounded(math.exp(sum(log_posteriors) / len(log_posteriors)))


def _rounded(posterior: float) -> float:
    # Sums of another order, as in a batch of another size, differ in the last bits; four digits are the same.
    return round(min(posterior, 1.0), 4)
