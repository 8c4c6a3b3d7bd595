"""A small emotion2vec+ checkpoint in FunASR's own layout, written with the library."""

import json

import numpy as np
import yaml

from tests.backends.tiny_funasr import load

TOKENS = ["生气/angry", "厌恶/disgusted", "unuse_0", "开心/happy", "中立/neutral", "<unk>"]
SIZE = 32


def write_emotion2vec(folder, said=(), tokens=TOKENS):
    """Writes an emotion2vec+ of 2 + 1 blocks.

    Args:
        folder: Where.
        said: (wave, token) pairs its head is to tell apart; else its weights are random.
        tokens: The outputs; none of them makes it a model without a head.
    """
    import torch

    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.yaml").write_text(yaml.safe_dump(_config(bool(tokens)), sort_keys=False), encoding="utf-8")
    metas = {"init_param": "model.pt", "config": "config.yaml"}
    if tokens:
        (folder / "tokens.txt").write_text("\n".join(tokens), encoding="utf-8")
        metas["tokenizer_conf"] = {"token_list": "tokens.txt"}
    (folder / "configuration.json").write_text(json.dumps({"model": {"type": "funasr"}, "file_path_metas": metas}))
    torch.manual_seed(3)
    model = load(folder)
    if said:
        _teach(model.model.eval(), said, tokens)
    torch.save({"model": {f"d2v_model.{name}": value.clone() for name, value in model.model.state_dict().items()}},
               folder / "model.pt")  # fmt: skip


def _config(with_head):
    audio = {
        "type": "AUDIO", "extractor_mode": "layer_norm", "feature_encoder_spec": "[(16, 10, 5)] + [(16, 3, 2)] * 4 + "
        "[(16, 2, 2)] + [(16, 2, 2)]", "conv_pos_width": 15, "conv_pos_groups": 4, "conv_pos_depth": 5,
        "conv_pos_pre_ln": False, "prenet_depth": 1, "prenet_layerdrop": 0.0, "prenet_dropout": 0.0,
        "start_drop_path_rate": 0.0, "end_drop_path_rate": 0.0, "num_extra_tokens": 3, "init_extra_token_zero": True,
        "mask_noise_std": 0.01, "mask_prob_min": None, "mask_prob": 0.5, "inverse_mask": False,
        "mask_prob_adjust": 0.05, "keep_masked_pct": 0.0, "mask_length": 5, "add_masks": False,
        "remove_masks": False, "mask_dropout": 0.0, "encoder_zero_mask": True, "mask_channel_prob": 0.0,
        "mask_channel_length": 64, "ema_local_encoder": False, "local_grad_mult": 1.0, "use_alibi_encoder": True,
        "alibi_scale": 1.0, "learned_alibi": False, "alibi_max_pos": None, "learned_alibi_scale": True,
        "learned_alibi_scale_per_head": True, "learned_alibi_scale_per_layer": False, "num_alibi_heads": 2,
        "model_depth": 2, "decoder": None,
    }  # fmt: skip
    model = {
        "loss_beta": 0.0, "loss_scale": None, "depth": 2, "start_drop_path_rate": 0.0, "end_drop_path_rate": 0.0,
        "num_heads": 2, "norm_eps": 1e-5, "norm_affine": True, "encoder_dropout": 0.1, "post_mlp_drop": 0.1,
        "attention_dropout": 0.1, "activation_dropout": 0.0, "dropout_input": 0.0, "layerdrop": 0.05,
        "embed_dim": SIZE, "mlp_ratio": 2.0, "layer_norm_first": False, "average_top_k_layers": 2,
        "end_of_block_targets": False, "clone_batch": 1, "normalize": True,
        "modalities": {"_name": None, "audio": audio},
    }  # fmt: skip
    config = {"model": "Emotion2vec", "model_conf": model, "scope_map": ["d2v_model.", "none"]}
    if with_head:
        config |= {"tokenizer": "CharTokenizer", "tokenizer_conf": {"unk_symbol": "<unk>", "split_with_space": True}}
    return config


def _teach(model, said, tokens):
    """Sets the head so that the mean states of each wave give its token."""
    import torch

    with torch.no_grad():
        means = []
        for wave, _ in said:
            source = torch.nn.functional.layer_norm(torch.from_numpy(wave), wave.shape)
            means.append(model.extract_features(source[None], padding_mask=None)["x"][0].mean(dim=0))
        states = torch.stack(means).double()
        kernel = torch.cat([states, torch.ones(len(states), 1)], 1).double()
        one_hot = torch.from_numpy(np.eye(len(tokens))[[tokens.index(token) for _, token in said]])
        solved = torch.linalg.lstsq(kernel, one_hot * 8 - 4, driver="gelsd").solution.float()
        model.proj.weight.copy_(solved[:-1].T)
        model.proj.bias.copy_(solved[-1])
