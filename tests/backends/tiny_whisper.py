"""A small Whisper checkpoint, written with the library: config, generation config, tokenizer, features, weights."""

import numpy as np

LANGUAGES = ("en", "zh", "de")
SECONDS = 4
TEXTS = ["good morning to you", "the weather is good today", "早上好，今天天气很好"]


def write_whisper(folder, said=(), multilingual=True, alignment=True):
    """Writes a Whisper of two layers that hears `SECONDS` at once.

    Args:
        folder: Where.
        said: (wave, language, text) that it learns by heart; without any its weights are random.
        multilingual: As the model config says.
        alignment: Name alignment heads in the generation config.
    """
    import torch
    from transformers import (
        WhisperConfig,
        WhisperFeatureExtractor,
        WhisperForConditionalGeneration,
        WhisperProcessor,
    )

    tokenizer = _tokenizer(folder)
    ids = tokenizer.convert_tokens_to_ids
    config = WhisperConfig(
        vocab_size=len(tokenizer), d_model=32, encoder_layers=2, decoder_layers=2, encoder_attention_heads=2,
        decoder_attention_heads=2, encoder_ffn_dim=64, decoder_ffn_dim=64, max_source_positions=50 * SECONDS,
        max_target_positions=48, num_mel_bins=80, pad_token_id=ids("<|endoftext|>"), bos_token_id=ids("<|endoftext|>"),
        eos_token_id=ids("<|endoftext|>"), decoder_start_token_id=ids("<|startoftranscript|>"), init_std=0.1,
        dropout=0.0,
    )  # fmt: skip
    torch.manual_seed(3)
    model = WhisperForConditionalGeneration(config)
    generation = model.generation_config
    generation._from_model_config = False  # else it is made anew from config.json when it is read
    generation.no_timestamps_token_id, generation.is_multilingual = ids("<|notimestamps|>"), multilingual
    generation.decoder_start_token_id, generation.max_length = config.decoder_start_token_id, 48
    generation.suppress_tokens, generation.begin_suppress_tokens = [], [config.eos_token_id]
    if multilingual:
        generation.lang_to_id = {f"<|{name}|>": ids(f"<|{name}|>") for name in LANGUAGES}
        generation.task_to_id = {name: ids(f"<|{name}|>") for name in ("transcribe", "translate")}
    if alignment:
        generation.alignment_heads = [[0, 1], [1, 0], [1, 1]]
    extractor = WhisperFeatureExtractor(chunk_length=SECONDS)
    for wave, language, text in said:
        learn(model, tokenizer, extractor, wave, [f"<|{language}|>", "<|transcribe|>"] if multilingual else [], text)
    model.save_pretrained(folder)
    WhisperProcessor(extractor, tokenizer).save_pretrained(folder)


def _tokenizer(folder):
    from tokenizers import ByteLevelBPETokenizer
    from transformers import WhisperTokenizer

    trained = ByteLevelBPETokenizer()
    trained.train_from_iterator(TEXTS * 3, vocab_size=300, show_progress=False)
    trained.save_model(str(folder), "raw")
    tokenizer = WhisperTokenizer(str(folder / "raw-vocab.json"), str(folder / "raw-merges.txt"))
    for name in ("raw-vocab.json", "raw-merges.txt"):
        (folder / name).unlink()
    marks = ["<|startoftranscript|>", *(f"<|{name}|>" for name in LANGUAGES), "<|translate|>", "<|transcribe|>",
             "<|startoflm|>", "<|startofprev|>", "<|nospeech|>", "<|notimestamps|>"]  # fmt: skip
    tokenizer.add_special_tokens({"additional_special_tokens": marks})
    times = np.arange(SECONDS * 50 + 1) * 0.02
    tokenizer.add_tokens([f"<|{time:.2f}|>" for time in times])
    return tokenizer


def learn(model, tokenizer, extractor, wave, told, text):
    """Trains a model until it says `text` of a wave."""
    import torch

    prompt = tokenizer.convert_tokens_to_ids(["<|startoftranscript|>", *told, "<|notimestamps|>"])
    labels = torch.tensor([[*prompt[1:], *tokenizer(text, add_special_tokens=False).input_ids, tokenizer.eos_token_id]])
    inputs = torch.cat([torch.tensor([prompt[:1]]), labels[:, :-1]], dim=1)
    mel = extractor(wave, sampling_rate=16000, return_tensors="pt").input_features
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    for _ in range(60):
        loss = model(input_features=mel, decoder_input_ids=inputs, labels=labels).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    model.eval()
