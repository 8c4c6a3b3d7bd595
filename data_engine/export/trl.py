"""Export of preference pairs for TRL: explicit prompt, chosen and rejected, with the tokenizer that reads them.

Pairs that differ in text train (masked) DPO and are the default set. Pairs that differ in sound only would teach masked
DPO nothing and unmasked DPO the wrong thing, so they are a set of their own whose columns no DPO trainer takes.
Only pyarrow and tokenizers are needed to write it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from data_engine.backends.catalog import build_backend
from data_engine.core.config import BackendChoice
from data_engine.core.errors import ConfigError, ContractError
from data_engine.core.schema import load_schema
from data_engine.export.card import Facts, dataset_card
from data_engine.export.catalog import ExportReport
from data_engine.export.split_files import SplitFiles, by_split, scratch, with_features
from data_engine.export.tokenizer import Speller, complete_document, read_document, tokenizer_files
from data_engine.io.outputs import listed_parts, require_parts
from data_engine.io.shards import read_batches
from data_engine.io.storage import Storage
from data_engine.tokens.vocabulary import Ids, SpecialTokens

TRL_COLUMNS = ("prompt", "chosen", "rejected")
UNREADABLE = "\ufffd"
"""What a decoder puts for bytes that are no character."""
_AUDIO_COLUMNS = ("audio_q", "chosen_audio", "rejected_audio")
_ABOUT = """\
Preference pairs of a speech data engine run. `load_dataset("THIS_FOLDER")` gives pairs whose answers differ in what is
said, in TRL's explicit form `prompt`, `chosen`, `rejected`; `tokenizer/` reads these strings back to exactly
`prompt_ids`, `chosen_ids` and `rejected_ids` (checked row by row when this was written). It has 70,656 entries.

```python
from datasets import load_dataset
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import DPOConfig, DPOTrainer
from trl.trainer.dpo_trainer import DataCollatorForPreference
from data_engine.loader import mask_audio

tokenizer = AutoTokenizer.from_pretrained("THIS_FOLDER/tokenizer")
trainer = DPOTrainer(
    model=AutoModelForCausalLM.from_pretrained("YOUR_MODEL"),
    args=DPOConfig(output_dir="dpo", max_length=None),
    train_dataset=load_dataset("THIS_FOLDER", split="train"),
    processing_class=tokenizer,
    data_collator=mask_audio(DataCollatorForPreference(pad_token_id=tokenizer.pad_token_id)),
)
```

`mask_audio` makes it the masked DPO of Step-Audio-AQAA (arXiv 2506.08967): audio tokens carry no preference. The
columns `mask_chosen` and `mask_rejected` say the same. Without it, TRL trains on audio tokens too."""
_ABOUT_AUDIO = """\
The set `audio_pairs` (`load_dataset("THIS_FOLDER", "audio_pairs")`) holds pairs that say the same and sound different:
for a reward model or unmasked training. `masked` is false in all of them. Never mix them with the pairs above."""


def export_trl(
    source: Storage,
    target: Storage,
    split: str | None,
    text_tokenizer: BackendChoice | None = None,
    split_characters: Literal["skip", "fail"] = "skip",
) -> ExportReport:
    """Writes preference pairs, the tokenizer and a dataset card.

    Args:
        source: Output folder with the table "preferences".
        target: Folder to write.
        split: Only this split; none: all.
        text_tokenizer: Back end that made the ids; none: as `run.json` says.
        split_characters: What to do with a text pair in which audio cuts a character whose bytes are several ids, so
            that no string stands for it: leave it out and count it, or stop. The shards and the loader have it.

    Raises:
        ConfigError: There are no pairs, or the text tokenizer cannot be exported.
        ContractError: Ids of another or of two tokenizers, a pair whose strings are not read back as its ids, or a set
            that mixes the two kinds.
    """
    require_parts(source, "preferences")
    choice = text_tokenizer or _tokenizer_choice(source)
    tokenizer = build_backend("text_tokenizer", choice.name, choice.options)
    tokenizer.open()
    document = complete_document(read_document(choice), tokenizer.specials())
    report, facts = ExportReport("trl", target.uri), Facts()
    special = SpecialTokens.from_mapping(tokenizer.specials())
    pairs = _PairWriter(Speller(tokenizer, document), special, split_characters, report)
    _write_sets(source, target, split, pairs, facts, tokenizer.revision)
    for name, content in tokenizer_files(document, tokenizer.specials()).items():
        target.write(f"tokenizer/{name}", content)
        report.files.append(f"tokenizer/{name}")
    _note_licences(source, facts)
    has_audio = any(key.startswith("audio_pairs/") for key in report.rows)
    folders = {"text_pairs": "data"} | ({"audio_pairs": "audio_pairs"} if has_audio else {})
    about = [_ABOUT, *([_ABOUT_AUDIO] if has_audio else []), *_left_out(report)]
    target.write("README.md", dataset_card("Speech preference pairs", folders, report.rows, facts, about).encode())
    report.files.append("README.md")
    return report


class _PairWriter:
    """Turns rows of the preferences table into rows of the text set."""

    def __init__(
        self, speller: Speller, special: SpecialTokens, split_characters: Literal["skip", "fail"], report: ExportReport
    ) -> None:
        self.speller, self.special, self.split_characters, self.report = speller, special, split_characters, report

    def text_pairs(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """Returns text pairs with their strings, without audio.

        Raises:
            ContractError: As `export_trl`.
        """
        columns = [batch.column(name) for name in ("pair_id", *(f"{name}_ids" for name in TRL_COLUMNS))]
        rows = zip(*columns, strict=True)
        strings = [self._strings(str(pair), *(ids.values.to_numpy() for ids in row)) for pair, *row in rows]
        kept = batch.filter(pa.array([row is not None for row in strings], pa.bool_()))
        if left_out := batch.num_rows - kept.num_rows:
            self.report.left_out["split_characters"] = self.report.left_out.get("split_characters", 0) + left_out
        kept = kept.drop_columns(list(_AUDIO_COLUMNS))
        written = [row for row in strings if row is not None]
        for position, name in enumerate(TRL_COLUMNS):
            kept = kept.append_column(name, pa.array([row[position] for row in written], pa.string()))
        return with_features(kept, load_schema("preference"), TRL_COLUMNS)

    def _strings(self, pair: str, prompt: Ids, *answers: Ids) -> tuple[str, ...] | None:
        texts = tuple(self.speller.spell(ids) for ids in (prompt, *answers))
        # TRL encodes prompt and answer together, and appends the end of sequence where it is missing.
        whole = [(texts[0] + text, np.concatenate([prompt, ids])) for text, ids in zip(texts[1:], answers, strict=True)]
        ends = all(ids.size and ids[-1] == self.special.end_of_turn for ids in answers)
        if ends and all(self.speller.reads_back(*form) for form in [(texts[0], prompt), *whole]):
            return texts
        if self.split_characters == "skip" and any(UNREADABLE in text for text in texts):
            return None
        raise ContractError(
            f"pair '{pair}' has no string form that the exported tokenizer reads back as its ids: a token is spelled "
            "out in its text, audio cuts a character, or its answer does not end its turn. Train it from the shards, "
            "which hold ids."
        )


def _write_sets(
    source: Storage, target: Storage, split: str | None, pairs: _PairWriter, facts: Facts, revision: str
) -> None:
    schema = load_schema("preference")
    with scratch(target) as local:
        text, audio = SplitFiles(target, "data", local), SplitFiles(target, "audio_pairs", local)
        for batch in _checked_batches(source, revision):
            masked = batch.column("masked")
            for name, rows in by_split(batch.filter(masked), split):
                facts.add(rows)
                text.write(name, pairs.text_pairs(rows))
            for name, rows in by_split(batch.filter(pc.invert(masked)), split):
                facts.add(rows)
                audio.write(name, with_features(rows, schema))
        if not text.rows:
            raise ConfigError(f"'{source.uri}' has no text pairs" + (f" in the split {split}" if split else ""))
        pairs.report.files += text.close() + audio.close()
    pairs.report.rows |= {f"text_pairs/{name}": count for name, count in text.rows.items()}
    pairs.report.rows |= {f"audio_pairs/{name}": count for name, count in audio.rows.items()}


def _checked_batches(source: Storage, revision: str) -> Iterator[pa.RecordBatch]:
    seen: set[str] = set()
    for part in listed_parts(source, "preferences"):
        for batch in read_batches(source, part):
            if pc.any(pc.not_equal(pc.equal(batch.column("kind"), "text"), batch.column("masked"))).as_py():
                raise ContractError(f"'{part.name}' has a pair whose `kind` and `masked` disagree; it is not exported")
            seen.update(pc.unique(batch.column("tokenizer_hash")).to_pylist())
            if len(seen) > 1:
                raise ContractError(f"'{part.name}' mixes audio tokenizers {sorted(seen)}; export the runs one by one")
            text = set(pc.unique(batch.column("text_tokenizer_hash")).to_pylist())
            if text - {revision}:
                raise ContractError(
                    f"'{part.name}' was made with the text tokenizer {sorted(text)}, the exported one is {revision}; "
                    "name the one the run used with text_tokenizer"
                )
            yield batch


def _tokenizer_choice(source: Storage) -> BackendChoice:
    run = source.read_json("run.json") or {}
    prefer = (run.get("config") or {}).get("prefer") or {}
    return BackendChoice.model_validate((prefer.get("pair") or {}).get("text_tokenizer") or "bpe")


def _note_licences(source: Storage, facts: Facts) -> None:
    # Pairs name no licence; their voices do.
    for table in ("voices", "aqaa"):
        for part in listed_parts(source, table):
            for batch in read_batches(source, part, ["licence"]):
                facts.licences.update(v for v in pc.unique(batch.column("licence")).to_pylist() if v)


def _left_out(report: ExportReport) -> list[str]:
    count = report.left_out.get("split_characters", 0)
    if not count:
        return []
    return [f"{count} pairs are left out: audio cuts a character in two, so no string stands for their ids."]
