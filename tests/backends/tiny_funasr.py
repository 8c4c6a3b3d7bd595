"""Small checkpoints in FunASR's own layout, written with the library: Paraformer, BiCif-Paraformer and SenseVoice."""

import json

import numpy as np
import yaml

RATE = 16000
SIZE = 32
TOKENS = ["<blank>", "<s>", "</s>", "今", "天", "气", "morn@@", "ing", "good", "day", "two", "<unk>"]
TAGS = ["<|nospeech|>", "<|zh|>", "<|en|>", "<|HAPPY|>", "<|NEUTRAL|>", "<|EMO_UNKNOWN|>", "<|Speech|>", "<|Laughter|>",
        "<|withitn|>", "<|woitn|>"]  # fmt: skip
LINES = ["good morning to you", "a good day to all of you", "tomorrow morning is another day", "it is a good day"]

_ENCODER = {
    "output_size": SIZE, "attention_heads": 2, "linear_units": 32, "num_blocks": 2, "dropout_rate": 0.0,
    "positional_dropout_rate": 0.0, "attention_dropout_rate": 0.0, "input_layer": "pe", "normalize_before": True,
    "pos_enc_class": "SinusoidalPositionEncoder", "kernel_size": 5, "sanm_shfit": 0,
    "selfattention_layer_type": "sanm",
}  # fmt: skip
_FRONTEND = {
    "fs": RATE, "window": "hamming", "n_mels": 80, "frame_length": 25, "frame_shift": 10, "lfr_m": 7, "lfr_n": 6,
    "dither": 0.0,
}  # fmt: skip


def murmur(seconds, seed=0):
    """Returns noise whose colour and level change ten times a second, float32 [samples]."""
    rng = np.random.default_rng(seed)
    parts = []
    for _ in range(int(np.ceil(seconds * 10))):
        tone = np.sin(2 * np.pi * rng.uniform(100, 3000) * np.arange(RATE // 10) / RATE)
        parts.append(rng.uniform(0.02, 0.3) * (tone + rng.normal(0, 0.3, RATE // 10)))
    return np.concatenate([*parts, np.zeros(0)])[: round(seconds * RATE)].astype(np.float32)


def write_paraformer(folder, with_timestamps=False):
    """Writes a Paraformer with random weights; with a timestamp predictor it is a BiCif-Paraformer."""
    predictor = {"idim": SIZE, "threshold": 1.0, "l_order": 1, "r_order": 1, "tail_threshold": 0.45}
    if with_timestamps:
        predictor |= {"smooth_factor2": 0.25, "noise_threshold2": 0.01, "upsample_times": 3,
                      "use_cif1_cnn": False, "upsample_type": "cnn_blstm"}  # fmt: skip
    config = {
        "model": "BiCifParaformer" if with_timestamps else "Paraformer",
        "model_conf": {"ctc_weight": 0.0, "length_normalized_loss": True, "predictor_bias": 1, "sampling_ratio": 0.75},
        "encoder": "SANMEncoder", "encoder_conf": _ENCODER,
        "decoder": "ParaformerSANMDecoder",
        "decoder_conf": {"attention_heads": 2, "linear_units": 32, "num_blocks": 2, "att_layer_num": 2,
                         "kernel_size": 5, "sanm_shfit": 0, "dropout_rate": 0.0, "positional_dropout_rate": 0.0},
        "predictor": "CifPredictorV3" if with_timestamps else "CifPredictorV2", "predictor_conf": predictor,
        "frontend": "WavFrontend", "frontend_conf": _FRONTEND,
        "tokenizer": "CharTokenizer", "tokenizer_conf": {"unk_symbol": "<unk>", "split_with_space": True},
    }  # fmt: skip
    (folder / "tokens.json").write_text(json.dumps(TOKENS, ensure_ascii=False), encoding="utf-8")
    model = _write(folder, config, {"token_list": "tokens.json"})
    output = model.model.decoder.output_layer
    output.weight.data *= 8.0
    output.bias.data[[n for n, token in enumerate(TOKENS) if token.startswith("<")]] = -1e4  # as when trained
    _save(model, folder)


def write_sensevoice(folder, said=None):
    """Writes a SenseVoiceSmall.

    Args:
        folder: Where.
        said: (wave, pieces by frame) that its head is to give for `<|en|><|HAPPY|><|Laughter|><|withitn|>` queries
            and those frames of the sound; else its weights are random.
    """
    import sentencepiece

    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(LINES * 5), model_prefix=str(folder / "tiny.bpe"), vocab_size=60, model_type="bpe",
        user_defined_symbols=TAGS, minloglevel=2, num_threads=1,
    )  # fmt: skip
    (folder / "tiny.bpe.vocab").unlink()
    encoder = {key: value for key, value in _ENCODER.items() if key != "pos_enc_class"}
    config = {
        "model": "SenseVoiceSmall",
        "model_conf": {"length_normalized_loss": True, "sos": 1, "eos": 2, "ignore_id": -1},
        "encoder": "SenseVoiceEncoderSmall",
        "encoder_conf": encoder | {"tp_blocks": 1, "pos_enc_class": "SinusoidalPositionEncoder"},
        "frontend": "WavFrontend", "frontend_conf": _FRONTEND,
        "tokenizer": "SentencepiecesTokenizer", "tokenizer_conf": {"bpemodel": None, "unk_symbol": "<unk>"},
    }  # fmt: skip
    model = _write(folder, config, {"bpemodel": "tiny.bpe.model"})
    if said is not None:
        _teach(model, *said)
        _save(model, folder)


def _write(folder, config, tokenizer):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False), encoding="utf-8")
    shift, scale = (f"<{n}> 560 560\n<LearnRateCoef> 0 [ {' '.join([v] * 560)} ]\n"
                    for n, v in (("AddShift", "-12.0"), ("Rescale", "0.2")))  # fmt: skip
    (folder / "am.mvn").write_text(f"<Nnet>\n{shift}{scale}</Nnet>\n", encoding="utf-8")
    paths = {"init_param": "model.pt", "config": "config.yaml", "tokenizer_conf": tokenizer,
             "frontend_conf": {"cmvn_file": "am.mvn"}}  # fmt: skip
    (folder / "configuration.json").write_text(json.dumps({"model": {"type": "funasr"}, "file_path_metas": paths}))
    model = load(folder)
    _save(model, folder)
    return model


def load(folder):
    """Returns the library's own model of a folder."""
    from funasr import AutoModel

    return AutoModel(model=str(folder), device="cpu", ncpu=1, disable_update=True, disable_pbar=True, log_level="ERROR")


def _save(loaded, folder):
    import torch

    torch.save({name: value.clone() for name, value in loaded.model.state_dict().items()}, folder / "model.pt")


def _teach(loaded, wave, pieces):
    """Sets the CTC head to the states that a wave gives, so that each asked-for frame is nearest to its token."""
    import torch

    model, frontend = loaded.model.eval(), loaded.kwargs["frontend"]
    frontend.dither = 0.0
    token = loaded.kwargs["tokenizer"].sp.piece_to_id
    features, lengths = frontend(torch.from_numpy(wave)[None], [len(wave)])
    asked = model.embed(torch.tensor([[model.lid_dict["auto"], 1, 2, model.textnorm_dict["withitn"]]]))
    with torch.no_grad():
        states = model.encoder(torch.cat([asked, features.float()], 1), lengths + 4)[0][0]
        targets = {0: "<|en|>", 1: "<|HAPPY|>", 2: "<|Laughter|>", 3: "<|withitn|>"}
        targets |= {frame + 4: piece for frame, piece in pieces.items()}
        ids = torch.tensor([token(targets[f]) if f in targets else 0 for f in range(len(states))])
        one_hot = torch.nn.functional.one_hot(ids, model.vocab_size).double()
        kernel = torch.cat([states, torch.ones(len(states), 1)], 1).double()
        solved = torch.linalg.lstsq(kernel, one_hot * 40 - 20).solution.float()
        model.ctc.ctc_lo.weight.copy_(solved[:-1].T)
        model.ctc.ctc_lo.bias.copy_(solved[-1])
