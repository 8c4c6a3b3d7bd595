"""Gives real speech the phone times its transcripts lack: forced alignment with the model trained so far."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from data_engine.core.config import read_yaml, validate
from data_engine.models.codec_views import normalise_peak
from data_engine.models.linguistic_encoder import LinguisticEncoder
from data_engine.models.monotone import best_path
from data_engine.models.phones import PAUSE, TOKEN_IDS
from data_engine.training.linguistic import GRID, LinguisticSettings, network
from data_engine.training.loop import load_weights
from data_engine.training.speech.waves import Ints, Part, Utterance, load, replace_phones

_PAUSE_ID = TOKEN_IDS[PAUSE]


def viterbi(scores: npt.NDArray[np.float32], states: Ints, optional: npt.NDArray[np.bool_]) -> Ints | None:
    """Returns the state of each frame on the best way through a line of states, or None when there are too few frames.

    Args:
        scores: Log posterior of each token, [frames, tokens].
        states: Token of each state, in order.
        optional: States that may be skipped; never two in a row.
    """
    return best_path(scores[:, states], optional)


def aligned(scores: npt.NDArray[np.float32], utterance: Utterance) -> tuple[Ints, Ints] | None:
    """Returns the tokens, pauses included, and the sample after each, or None when the utterance is too fast.

    Args:
        scores: Log posteriors of the frame head, [frames, tokens].
        utterance: Its phones without pauses.
    """
    phones = utterance.spoken
    states = np.full(2 * len(phones) + 1, _PAUSE_ID)
    states[1::2] = phones
    path = viterbi(scores, states, states == _PAUSE_ID)
    if path is None:
        return None
    changes = np.flatnonzero(np.diff(path)) + 1
    tokens = states[path[np.concatenate([[0], changes])]]
    # A boundary lies half-way between the centres of the frames beside it.
    ends = GRID.centre + GRID.samples * changes - GRID.samples // 2
    return tokens, np.append(ends, len(utterance.wave))


def align_part(model: LinguisticEncoder, part: Part) -> tuple[list[Ints], list[Ints], Ints]:
    """Returns tokens, ends and whether times are known for every utterance of a part."""
    tokens, ends, known = [], [], np.zeros(len(part), np.int64)
    for index in range(len(part)):
        utterance = part.utterance(index)
        features = torch.from_numpy(GRID.features(normalise_peak(utterance.wave)))[None]
        logits: Tensor = model(features, torch.tensor([features.shape[1]]))[2][0]
        found = aligned(torch.log_softmax(logits, -1).numpy(), utterance)
        known[index] = found is not None
        tokens.append(found[0] if found else utterance.phones)
        ends.append(found[1] if found else np.full(len(utterance.phones), -1))
    return tokens, ends, known


def main() -> None:
    """Runs `python -m data_engine.training.align --config FILE PART TARGET`: TARGET becomes PART with phone times."""
    parser = argparse.ArgumentParser(description="Aligns a part of the corpus with the linguistic model.")
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("part")
    parser.add_argument("target")
    arguments = parser.parse_args()
    config = validate(LinguisticSettings, read_yaml(arguments.config), str(arguments.config))
    torch.set_num_threads(1)
    model = network()
    load_weights(model, config.output)
    with torch.inference_mode():
        tokens, ends, known = align_part(model.eval(), load(config.cache, [arguments.part])[0])
    replace_phones(config.cache / arguments.part, config.cache / arguments.target, tokens, ends, known)
    print(f"{arguments.target}: {int(known.sum())} of {len(known)} utterances have phone times")


if __name__ == "__main__":
    main()
