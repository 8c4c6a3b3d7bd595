"""What prompts say: system prompts and edit instructions, in this engine's own words.

These are defaults. To prompt a released checkpoint of Step-Audio (arXiv 2502.11946) or Step-Audio-EditX
(arXiv 2511.03601), pass the wording it was trained with.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Literal

from data_engine.core.errors import ConfigError

PromptKind = Literal["speaker", "clone", "rap", "hum"]

SYSTEM_PROMPTS: Mapping[str, Mapping[str, str]] = {
    "zh": {
        "speaker": "请用{speaker}的声音把文字读出来。括号里若写有情绪、方言或语速，请照做。",
        "clone": "请用上一段录音里的声音把文字读出来。括号里若写有情绪、方言或语速，请照做。",
        "rap": "请用{speaker}的声音把歌词用说唱唱出来，节奏要稳。",
        "hum": "请用{speaker}的声音把歌词轻声哼出来，旋律要顺。",
    },
    "en": {
        "speaker": "Read the text aloud in the voice of {speaker}. Follow any tag in brackets.",
        "clone": "Read the text aloud in the voice of the recording before it. Follow any tag in brackets.",
        "rap": "Perform the lyrics as rap in the voice of {speaker}, with a steady beat.",
        "hum": "Hum the lyrics softly in the voice of {speaker}, with a smooth melody.",
    },
}
EDIT_SYSTEM = "Change the recording as the user asks. Keep the speaker and everything that is not named."
EDIT_CLONE_SYSTEM = (
    "Speak the user's text in the voice below.\n[speaker_start]\n{speaker}\n{prompt_text}\n{audio}\n[speaker_end]"
)
EDIT_INSTRUCTIONS: Mapping[str, str] = {
    "emotion": "Make the following audio more {what}. The text corresponding to the audio is: {text}\n",
    "speed": "Make the following audio more {what}. The text corresponding to the audio is: {text}\n",
    "style": "Make the following audio more {what} style. The text corresponding to the audio is: {text}\n",
    "remove_emotion": "Remove any emotion from the following audio. Its text is: {text}\n",
    "remove_style": "Remove any speaking style from the following audio. Its text is: {text}\n",
    "denoise": "Remove any noise from the following audio and leave the voice as it is.",
    "trim": "Remove any silent portions from the following audio and leave the voice as it is.",
    "nonverbal": "Add some non-verbal sounds to the audio. Its new text is: {what}\nIts text was: {text}\n",
}


def system_prompt(
    kind: PromptKind,
    language: str = "zh",
    speaker: str = "",
    prompts: Mapping[str, Mapping[str, str]] = SYSTEM_PROMPTS,
) -> str:
    """Returns the system wording for a way of speaking.

    Raises:
        ConfigError: No wording for this language and kind, or one that names a speaker got none.
    """
    wording = prompts.get(language, {}).get(kind)
    if wording is None:
        raise ConfigError(f"no system prompt for language {language!r}, kind {kind!r}; add it to `prompts`")
    if "{speaker}" in wording and not speaker:
        raise ConfigError(f"system prompt {kind!r} names the speaker; pass speaker=")
    return fill(wording, speaker=speaker)


def edit_instruction(kind: str, text: str, what: str = "", wording: Mapping[str, str] = EDIT_INSTRUCTIONS) -> str:
    """Returns an edit instruction such as "Make the following audio more happy. ...".

    Args:
        kind: Key of `wording`.
        text: What the recording says.
        what: Emotion, style or speed wanted; for `nonverbal` the new text.
        wording: Instructions by kind, with `{what}` and `{text}`.

    Raises:
        ConfigError: Unknown kind, or `what` missing where the wording needs it.
    """
    if kind not in wording:
        raise ConfigError(f"unknown edit {kind!r}; there are {sorted(wording)}")
    if "{what}" in wording[kind] and not what:
        raise ConfigError(f"edit {kind!r} needs what=, e.g. 'happy' or 'faster'")
    return fill(wording[kind], what=what, text=text)


def fill(wording: str, **values: str) -> str:
    """Fills `{name}` placeholders in one pass, so that braces inside a value stay text."""
    return re.sub(r"\{(" + "|".join(values) + r")\}", lambda match: values[match[1]], wording)
