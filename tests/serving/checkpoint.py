"""A tiny Llama with random weights, in the folder format `vllm serve` loads: the real formats at no size."""

import json

from data_engine.backends.text_bpe import BpeTokenizer
from data_engine.core.config import BackendChoice
from data_engine.export.tokenizer import complete_document, read_document, tokenizer_files
from data_engine.tokens.vocabulary import PUBLISHED_IDS, TOKEN_STRINGS, VOCABULARY_SIZE

CHAT = (
    "{{ bos_token }}{% for m in messages %}<|BOT|>{{ m['role'] }}\n{{ m['content'] }}<|EOT|>{% endfor %}"
    "<|BOT|>assistant\n"
)


def write_checkpoint(folder, seed=0):
    """Writes config, weights, tokenizer and chat template; equal seeds give equal files."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=VOCABULARY_SIZE, hidden_size=64, intermediate_size=128, num_hidden_layers=2,
        num_attention_heads=2, num_key_value_heads=2, max_position_embeddings=8192, tie_word_embeddings=True,
        bos_token_id=PUBLISHED_IDS["bos"], eos_token_id=PUBLISHED_IDS["end_of_turn"],
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer = BpeTokenizer()
    tokenizer.open()
    named = set(TOKEN_STRINGS.values())
    specials = {token: number for token, number in tokenizer.specials().items() if token in named}
    for name, content in tokenizer_files(
        complete_document(read_document(BackendChoice(name="bpe")), specials), specials
    ).items():
        (folder / name).write_bytes(content)
    path = folder / "tokenizer_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "chat_template": CHAT}))
    return folder
