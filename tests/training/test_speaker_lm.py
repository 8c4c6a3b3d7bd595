"""The speaker LM: it learns its targets, goes on where it stopped, and its folder is what transformers loads."""

import json

import numpy as np
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from data_engine.core.config import BackendChoice  # noqa: E402
from data_engine.core.errors import ConfigError  # noqa: E402
from data_engine.tokens.compact import CompactVocabulary  # noqa: E402
from data_engine.tokens.interleave import Interleaving  # noqa: E402
from data_engine.tokens.layout import interleave_codes, to_string  # noqa: E402
from data_engine.tokens.records import aqtaa_record, tqta_record  # noqa: E402
from data_engine.tokens.templates import Turn, chat_prompt_string  # noqa: E402
from data_engine.training import speaker_lm  # noqa: E402
from data_engine.training.loop import LoopSettings  # noqa: E402
from data_engine.training.speaker_examples import Coded, Example, cloning_examples, special_tokens  # noqa: E402
from data_engine.training.speaker_folder import save_folder  # noqa: E402

TINY = speaker_lm.NetworkSettings(size=64, hidden=128, layers=2, heads=2, key_value_heads=1, positions=512)


def audio(seed, groups):
    rng = np.random.default_rng(seed)
    return interleave_codes(rng.integers(0, 1024, 2 * groups), rng.integers(0, 4096, 3 * groups)).ids


@pytest.fixture(scope="module")
def examples(tokenizer, vocabulary):
    """Two cloned sentences, a text answer and an interleaved one."""
    special, encode = special_tokens(tokenizer), tokenizer.encode
    spoken = [Coded("one two", "a", "en", audio(1, 3), False), Coded("three", "a", "en", audio(2, 4), False)]
    found = list(cloning_examples(spoken, tokenizer, vocabulary, 1))
    assert [example.type for example in found] == ["TTS", "TTS"]
    asked = Turn("user", "What is two and two?")
    heard = Turn("user", "What is the capital?", audio(3, 3))
    records = [
        tqta_record([asked], "Four.", encode, special),
        aqtaa_record([heard], [("It is Rome.", audio(4, 4))], encode, special, Interleaving()),
    ]
    return [*found, *(Example(r.type, vocabulary.to_model(r.input_ids), r.loss_mask, False) for r in records)]


@pytest.fixture(scope="module")
def trained(examples, vocabulary):
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = speaker_lm.network(TINY, vocabulary)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for _ in range(120):
        loss = sum(speaker_lm.losses_of(model, examples, vocabulary.text_size).values())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model.eval(), float(loss)


@pytest.fixture(scope="module")
def folder(trained, tokenizer, vocabulary, tmp_path_factory):
    made = tmp_path_factory.mktemp("release")
    save_folder(trained[0], made, BackendChoice(name="bpe"), tokenizer.specials(), vocabulary)
    return made


def test_the_compact_vocabulary_has_no_gap_and_loses_nothing(vocabulary):
    ids = np.array([0, 3, 4000, 65536, 70655])
    assert vocabulary.text_size == 4384
    assert vocabulary.size == 4384 + 5120
    assert vocabulary.to_model(ids).tolist() == [0, 3, 4000, 4384, 9503]
    assert vocabulary.from_model(vocabulary.to_model(ids)).tolist() == ids.tolist()
    assert CompactVocabulary(65536).to_model(ids).tolist() == ids.tolist()


def test_the_shipped_shape_has_5_to_15_million_parameters(vocabulary):
    with torch.device("meta"):
        model = speaker_lm.network(speaker_lm.NetworkSettings(), vocabulary)
    assert 5e6 < sum(weights.numel() for weights in model.parameters()) < 15e6
    assert model.config.tie_word_embeddings


def test_it_learns_four_examples_by_heart(trained, examples):
    model, loss = trained
    assert loss < 0.1
    for example in examples:
        with torch.inference_mode():
            best = model(torch.from_numpy(example.ids.astype(np.int64))[None]).logits[0].argmax(-1).numpy()
        target = example.mask[1:] == 1
        assert np.mean(best[:-1][target] == example.ids[1:][target]) > 0.95


def test_prompts_carry_no_loss(examples, vocabulary):
    torch.manual_seed(1)
    model = speaker_lm.network(TINY, vocabulary)
    example = examples[2]
    silent = Example(example.type, example.ids, np.zeros_like(example.mask), False)
    losses = speaker_lm.losses_of(model, [silent], vocabulary.text_size)
    assert float(losses["text"] + losses["audio"]) == 0.0
    losses = speaker_lm.losses_of(model, [example], vocabulary.text_size)
    assert float(losses["text"]) > 1
    assert float(losses["audio"]) == 0.0, "a text answer has no audio target"


def test_padding_changes_no_loss(trained, examples, vocabulary):
    model = trained[0]
    size = vocabulary.text_size
    counts = [int(e.mask.sum()) for e in examples]
    alone = [sum(speaker_lm.losses_of(model, [e], size).values()).item() for e in examples]
    together = sum(speaker_lm.losses_of(model, examples, size).values()).item()
    assert together == pytest.approx(np.average(alone, weights=counts), abs=5e-3)


def test_transformers_loads_the_folder_and_answers_by_heart(folder, examples, trained, vocabulary):
    model = transformers.AutoModelForCausalLM.from_pretrained(folder)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    assert len(tokenizer) == vocabulary.size == model.config.vocab_size
    assert model.generation_config.eos_token_id == tokenizer.eos_token_id == 3
    prompt = chat_prompt_string([Turn("user", "What is two and two?")])
    ids = tokenizer(prompt, add_special_tokens=False, return_tensors="pt").input_ids
    example = examples[2]
    assert ids[0].tolist() == example.ids[example.mask == 0].tolist()
    made = model.generate(ids, max_new_tokens=8, do_sample=False)[0, ids.shape[1] :]
    assert tokenizer.decode(made, skip_special_tokens=True) == "Four."
    messages = [{"role": "user", "content": "What is two and two?"}]
    assert tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True) == prompt


def test_audio_strings_are_the_engine_s_and_survive_decoding(folder, vocabulary):
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    run = audio(5, 2)
    ids = tokenizer(to_string(run), add_special_tokens=False).input_ids
    assert vocabulary.from_model(ids).tolist() == run.tolist()
    assert tokenizer.decode(ids, skip_special_tokens=True) == to_string(run)
    assert json.loads((folder / "engine_vocabulary.json").read_text())["audio_offset"] == vocabulary.text_size


def test_weights_are_safetensors_alone(folder):
    assert (folder / "model.safetensors").is_file()
    assert not [file for file in folder.iterdir() if file.suffix in (".bin", ".pt", ".pkl")]


def test_batches_keep_to_one_task_and_to_their_size(examples):
    tasks = speaker_lm.Tasks(examples * 5, {"TTS": 0.5, "AQTAA": 0.5}, 300)
    drawn = [tasks.batch(np.random.default_rng([1, step])) for step in range(30)]
    assert {example.type for batch in drawn for example in batch} == {"TTS", "AQTAA"}
    assert all(len({example.type for example in batch}) == 1 for batch in drawn)
    assert all(len(batch) == 1 or len(batch) * max(len(e.ids) for e in batch) <= 300 for batch in drawn)


def write_corpus(folder):
    """A part of the corpus with eight utterances of two speakers, and its codes."""
    from data_engine.core.schema import load_schema
    from data_engine.io.shards import PartWriter, marker_name
    from data_engine.io.storage import Storage
    from data_engine.training.speech.spoken import Spoken, row_of

    wave = np.zeros(1600, np.float32)
    rows = [
        row_of(Spoken(wave + n / 100, f"text {n}", "en", f"s{n % 2}", "toy", "CC0", "test" if n > 5 else "train"))
        for n in range(8)
    ]
    writer = PartWriter(load_schema("segment"), folder)
    writer.write(load_schema("segment").batch(rows))
    storage = Storage(str(folder / "corpus" / "toy"))
    storage.write_json(marker_name("segments", 0), writer.commit(storage, "segments", 0, {}))
    groups = np.full(7, 2)
    rng = np.random.default_rng(0)
    (folder / "codes").mkdir()
    np.savez(
        folder / "codes" / "toy.npz", chosen=np.arange(1, 8), first=np.cumsum(groups) - groups, groups=groups,
        linguistic=rng.integers(0, 1024, 28), semantic=rng.integers(0, 4096, 42), speakers=np.zeros((7, 256)),
    )  # fmt: skip


def settings(folder, minutes):
    loop = LoopSettings(minutes=minutes, evaluate_minutes=1, seed=1, log_steps=1)
    return speaker_lm.SpeakerSettings(
        output=folder / "out", corpus=folder / "corpus", codes=folder / "codes", parts=("toy",), network=TINY,
        weights={"TTS": 1.0},
        batch_ids=300, loop=loop,
    )  # fmt: skip


def test_a_training_reads_the_shards_and_goes_on_where_it_stopped(tmp_path):
    write_corpus(tmp_path)
    speaker_lm.train(settings(tmp_path, 0.005))
    steps = (tmp_path / "out" / "losses.csv").read_text().count("\n")
    speaker_lm.train(settings(tmp_path, 0.01))
    lines = (tmp_path / "out" / "losses.csv").read_text().splitlines()
    assert [int(line.split(",")[0]) for line in lines[1:]] == list(range(1, len(lines)))
    assert len(lines) > steps
    assert "TTS" in json.loads((tmp_path / "out" / "evaluations.jsonl").read_text().splitlines()[-1])
    assert transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "out" / "release")


def test_a_task_without_examples_is_a_configuration_error(tmp_path):
    write_corpus(tmp_path)
    with pytest.raises(ConfigError, match="AQTAA"):
        speaker_lm.train(settings(tmp_path, 0.01).model_copy(update={"weights": {"TTS": 0.5, "AQTAA": 0.5}}))
