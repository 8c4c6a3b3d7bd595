"""Preference pairs for TRL: the exported strings are the ids, and TRL's own trainer learns from them."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerBase
from trl import DPOConfig, DPOTrainer
from trl.trainer.dpo_trainer import DataCollatorForPreference

from data_engine.backends.text_bpe import BpeTokenizer
from data_engine.core.config import BackendChoice
from data_engine.core.errors import ConfigError, ContractError
from data_engine.export.catalog import export
from data_engine.export.tokenizer import complete_document
from data_engine.loader import mask_audio
from data_engine.tokens.vocabulary import AUDIO_OFFSET, VOCABULARY_SIZE
from tests.rows import preference, write_output

IDS = ("prompt_ids", "chosen_ids", "rejected_ids")


@pytest.fixture(scope="module")
def text_tokenizer() -> BpeTokenizer:
    tokenizer = BpeTokenizer()
    tokenizer.open()
    return tokenizer


@pytest.fixture(scope="module")
def output(tmp_path_factory: pytest.TempPathFactory, text_tokenizer: BpeTokenizer) -> str:
    pairs = [preference(n, text_tokenizer, split="test" if n == 5 else "train") for n in range(6)]
    sounds = [preference(n, text_tokenizer, "audio") for n in range(6, 9)]
    config = {"prefer": {"pair": {"text_tokenizer": {"name": "bpe", "options": {}}}}}
    tables = {"preferences": [pairs + sounds[:1], sounds[1:]]}
    return write_output(tmp_path_factory.mktemp("run"), tables, config=config)


@pytest.fixture(scope="module")
def exported(output: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    target = str(tmp_path_factory.mktemp("trl") / "pairs")
    report = export(output, target, "trl")
    assert report.rows == {"text_pairs/train": 5, "text_pairs/test": 1, "audio_pairs/train": 3}
    assert report.left_out == {}
    return target


@pytest.fixture(scope="module")
def tokenizer(exported: str) -> Any:
    return AutoTokenizer.from_pretrained(f"{exported}/tokenizer")


def load(exported: str, name: str, folder: Path) -> Any:
    return datasets.load_dataset(exported, name, cache_dir=str(folder / "cache"))


def test_the_default_set_holds_text_pairs_and_no_other(exported: str, tmp_path: Path) -> None:
    loaded = datasets.load_dataset(exported, cache_dir=str(tmp_path / "cache"))
    assert {name: part.num_rows for name, part in loaded.items()} == {"train": 5, "test": 1}
    for part in loaded.values():
        assert set(part["kind"]) == {"text"}
        assert set(part["masked"]) == {True}
    assert {"prompt", "chosen", "rejected", *IDS} <= set(loaded["train"].column_names)


def test_audio_pairs_stand_apart_and_no_dpo_trainer_takes_them(exported: str, tmp_path: Path) -> None:
    (part,) = load(exported, "audio_pairs", tmp_path).values()
    assert set(part["masked"]) == {False}
    assert not {"prompt", "chosen", "rejected"} & set(part.column_names)
    assert isinstance(part.features["chosen_audio"], datasets.Audio)


def test_the_exported_tokenizer_reads_the_strings_as_the_very_ids(
    exported: str, tokenizer: PreTrainedTokenizerBase
) -> None:
    for row in pq.read_table(f"{exported}/data").to_pylist():
        assert tokenizer(row["prompt"])["input_ids"] == row["prompt_ids"]
        for side in ("chosen", "rejected"):
            assert tokenizer(row["prompt"] + row[side])["input_ids"] == row["prompt_ids"] + row[f"{side}_ids"]
            assert tokenizer.decode(row[f"{side}_ids"]) == row[side]
            assert row[side].endswith(tokenizer.eos_token)
        assert row["prompt"].startswith("<|BOT|>system\nYou are a kind guide.<|EOT|><|BOT|>human\n<audio_")


def test_the_exported_tokenizer_has_the_whole_vocabulary(tokenizer: PreTrainedTokenizerBase) -> None:
    assert len(tokenizer) == VOCABULARY_SIZE
    assert tokenizer.convert_tokens_to_ids(["<audio_0>", "<audio_5119>", "<|EOT|>"]) == [65536, 70655, 3]
    assert (tokenizer.eos_token, tokenizer.bos_token, tokenizer.pad_token) == ("<|EOT|>", "<s>", "<pad>")


class Recording:
    """A collator that keeps what the trainer was fed."""

    def __init__(self, collator: Any) -> None:
        self.collator, self.batches = collator, []

    def __call__(self, examples: list[Any]) -> Any:
        self.batches.append(self.collator(examples))
        return self.batches[-1]


@pytest.mark.parametrize("masked", [True, False])
def test_dpo_trainer_takes_two_steps(
    exported: str, tokenizer: PreTrainedTokenizerBase, tmp_path: Path, masked: bool
) -> None:
    torch.manual_seed(0)
    shape = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    model = LlamaForCausalLM(LlamaConfig(vocab_size=len(tokenizer), max_position_embeddings=512, **shape))
    model.save_pretrained(tmp_path / "model")
    before = dict(model.named_parameters())
    plain = DataCollatorForPreference(pad_token_id=tokenizer.pad_token_id)
    recording = Recording(mask_audio(plain) if masked else plain)
    arguments = DPOConfig(
        output_dir=str(tmp_path), max_steps=2, per_device_train_batch_size=2, learning_rate=1e-2, max_length=None,
        use_cpu=True, report_to=[], logging_steps=1, save_strategy="no", bf16=False, gradient_checkpointing=False,
        disable_tqdm=True,
    )  # fmt: skip
    trainer = DPOTrainer(
        model=str(tmp_path / "model"), args=arguments, processing_class=tokenizer, data_collator=recording,
        train_dataset=datasets.load_dataset(exported, split="train", cache_dir=str(tmp_path)),
    )  # fmt: skip
    trainer.train()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert len(losses) == 2
    assert all(math.isfinite(loss) for loss in losses)
    changed = [name for name, value in trainer.model.named_parameters() if not torch.equal(value, before[name])]
    assert changed == list(before)
    batch = recording.batches[0]
    trained = batch["input_ids"][batch["completion_mask"] != 0]
    assert bool((trained >= AUDIO_OFFSET).any()) is not masked
    rows = pq.read_table(f"{exported}/data").to_pylist()
    texts = [sorted(i for i, m in zip(r["chosen_ids"], r["mask_chosen"], strict=True) if m) for r in rows]
    if masked:
        first = batch["input_ids"][0][batch["completion_mask"][0] != 0]
        assert sorted(first.tolist()) in texts, "the mask is that of the shards"


def test_a_pair_whose_character_is_cut_by_audio_is_counted_or_stops(
    text_tokenizer: BpeTokenizer, tmp_path: Path
) -> None:
    # Rare characters are several ids each, and a chunk of ten ids does not end where a character does.
    cut = preference(0, text_tokenizer, texts=["龘靐齉爩麤灪" * 2, "Say it again."], language="zh")
    output = write_output(tmp_path / "run", {"preferences": [[cut, preference(1, text_tokenizer)]]})
    report = export(output, str(tmp_path / "a"), "trl")
    assert (report.rows, report.left_out) == ({"text_pairs/train": 1}, {"split_characters": 1})
    assert "1 pairs are left out" in (tmp_path / "a" / "README.md").read_text()
    with pytest.raises(ContractError, match="'p00000' has no string form"):
        export(output, str(tmp_path / "b"), "trl", split_characters="fail")


@pytest.mark.parametrize("text", ["Write <audio_5> and stop.", "Say <|EOT|> now."])
def test_a_token_spelled_out_in_the_text_stops_the_export(
    text_tokenizer: BpeTokenizer, tmp_path: Path, text: str
) -> None:
    bad = preference(0, text_tokenizer, texts=[text, "No."])
    output = write_output(tmp_path / "run", {"preferences": [[bad]]})
    with pytest.raises(ContractError, match="spelled out"):
        export(output, str(tmp_path / "a"), "trl")


def test_an_answer_that_does_not_end_its_turn_stops_the_export(text_tokenizer: BpeTokenizer, tmp_path: Path) -> None:
    row = preference(0, text_tokenizer)
    row |= {name: row[name][:-1] for name in ("chosen_ids", "mask_chosen")}
    output = write_output(tmp_path / "run", {"preferences": [[row]]})
    with pytest.raises(ContractError, match="does not end its turn"):
        export(output, str(tmp_path / "a"), "trl")


def test_ids_of_another_or_of_two_tokenizers_are_refused(text_tokenizer: BpeTokenizer, tmp_path: Path) -> None:
    other = [preference(0, text_tokenizer, text_tokenizer_hash="another")]
    mixed = [preference(0, text_tokenizer), preference(1, text_tokenizer, tokenizer_hash="audio-2")]
    with pytest.raises(ContractError, match="text tokenizer"):
        export(write_output(tmp_path / "1", {"preferences": [other]}), str(tmp_path / "a"), "trl")
    with pytest.raises(ContractError, match="mixes audio tokenizers"):
        export(write_output(tmp_path / "2", {"preferences": [mixed]}), str(tmp_path / "b"), "trl")
    unflagged = [preference(0, text_tokenizer, "audio", masked=True)]
    with pytest.raises(ContractError, match="disagree"):
        export(write_output(tmp_path / "3", {"preferences": [unflagged]}), str(tmp_path / "c"), "trl")


def test_without_text_pairs_there_is_nothing_to_export(text_tokenizer: BpeTokenizer, tmp_path: Path) -> None:
    output = write_output(tmp_path / "run", {"preferences": [[preference(0, text_tokenizer, "audio")]]})
    with pytest.raises(ConfigError, match="no text pairs"):
        export(output, str(tmp_path / "a"), "trl")
    assert list((tmp_path / "a").iterdir()) == []


def test_a_tokenizer_without_json_is_refused(output: str, tmp_path: Path, text_tokenizer: BpeTokenizer) -> None:
    choice = BackendChoice(name="bpe", options={"path": str(tmp_path)})
    with pytest.raises(ConfigError, match="no tokenizer"):
        export(output, str(tmp_path / "a"), "trl", text_tokenizer=choice)
    with pytest.raises(ContractError, match="it should be 3"):
        complete_document({"model": {"vocab": {"<|EOT|>": 9}}}, text_tokenizer.specials())


def test_masks_of_the_export_are_those_of_the_shards(exported: str, output: str, text_tokenizer: BpeTokenizer) -> None:
    row = pq.read_table(f"{exported}/data").to_pylist()[0]
    wanted = preference(int(row["pair_id"][1:]), text_tokenizer)
    np.testing.assert_array_equal(row["mask_chosen"], wanted["mask_chosen"])
    assert 0 < sum(row["mask_chosen"]) < len(row["mask_chosen"])
