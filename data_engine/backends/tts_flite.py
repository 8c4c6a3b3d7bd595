"""Speech synthesis with the `flite` program, English only, moved towards the consented voice by WORLD."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from data_engine.backends.prosody_rules import CONTROLS, ProsodyTargets, asked_prosody, read_rules, rules_digest
from data_engine.backends.protocols import Speech, SpeechRequest, Wave
from data_engine.backends.timbre import SAMPLE_RATE, SpeakerNorms, analyse, speaker_norms
from data_engine.backends.voice_rendering import (
    HIGH_VOICE_HZ,
    VoiceTargets,
    deviations,
    render,
    require_sound,
    require_words,
    resampled,
)
from data_engine.core.errors import ConfigError, RecordError

_METHOD = "exemplars-1"
_LOW_VOICES, _HIGH_VOICES = ("awb", "rms", "kal16"), ("slt",)
_CALIBRATION = "Six thin sheep, a big blue van, good food, cold air, my choice, the first hour, and more."
_SECONDS = 120


def flite_command(
    program: str, voice: str, text: str, output: Path, targets: ProsodyTargets, f0_hz: float
) -> list[str]:
    """Returns the command line that speaks `text` into a WAV file.

    Args:
        program: Path of flite.
        voice: One of flite's voices.
        text: What to say; passed as one argument, never through a shell.
        output: WAV file to write.
        targets: Tempo, pitch and range asked for.
        f0_hz: Median F0 of the voice to sound like.
    """
    settings = {
        "duration_stretch": f"{1 / targets.tempo:.4f}",
        "int_f0_target_mean": f"{f0_hz * targets.pitch_factor:.1f}",
        "int_f0_target_stddev": f"{0.1 * f0_hz * targets.range_factor:.1f}",
    }
    assignments = [part for name, value in settings.items() for part in ("--setf", f"{name}={value}")]
    return [program, "-voice", voice, *assignments, "-t", text, "-o", str(output)]


class FliteSynthesizer:
    """Role `tts`, name `flite`: for machines that have the program.

    Args:
        alpha: How far the timbre is moved to the voice, 0..1.
        program: Name or path of flite.
        controls: Folder of the control files; default: those of the package.
    """

    languages = frozenset({"en"})

    def __init__(self, alpha: float = 0.7, program: str = "flite", controls: str | None = None) -> None:
        self._alpha, self._name = alpha, program
        self._folder = Path(controls) if controls else CONTROLS
        self._rules = read_rules(self._folder)
        self._voices = VoiceTargets()
        self._norms: dict[str, SpeakerNorms] = {}

    @property
    def revision(self) -> str:
        """Hash of the program and the control files."""
        path = shutil.which(self._name)
        program = hashlib.sha256(Path(path).read_bytes()).hexdigest()[:16] if path else "missing"
        return f"flite-{program}+{rules_digest(self._folder)}+{_METHOD}"

    def open(self) -> None:
        """Checks that the program is there.

        Raises:
            ConfigError: It is not.
        """
        self._program()

    def close(self) -> None:
        """Forgets voices."""
        self._voices = VoiceTargets()
        self._norms.clear()

    def speak(self, requests: Sequence[SpeechRequest]) -> list[Speech]:
        """Returns one utterance per request, at 16 kHz.

        Raises:
            RecordError: UNSUPPORTED_LANGUAGE, UNSUPPORTED_CONTROL or SYNTHESIS_FAILED.
        """
        return [self._speak(request) for request in requests]

    def _speak(self, request: SpeechRequest) -> Speech:
        require_words(request.text)
        if request.language not in self.languages:
            raise RecordError("UNSUPPORTED_LANGUAGE", f"flite speaks English, not '{request.language}'")
        if request.dialect not in (None, "us"):
            raise RecordError("UNSUPPORTED_CONTROL", f"flite has no dialect '{request.dialect}'")
        asked = asked_prosody(request.emotion, request.level, request.speed, self._rules)
        voice = self._voices.of(request.voice)
        group = _HIGH_VOICES if voice.f0_hz > HIGH_VOICE_HZ else _LOW_VOICES
        name = group[request.seed % len(group)]
        targets, alpha = deviations(request.seed, asked, self._alpha)
        spoken = self._say(name, request.text, targets, voice.f0_hz)
        wave, lowered_db = render(spoken, self._source_norms(name), voice, targets, alpha)
        require_sound(wave, request.text)
        parameters = {
            "voice": name, "alpha": round(alpha, 4), "tempo": round(targets.tempo, 4),
            "pitch_hz": round(voice.f0_hz * targets.pitch_factor, 2),
            "range_factor": round(targets.range_factor, 4), "gain_db": round(targets.gain_db - lowered_db, 2),
        }  # fmt: skip
        return Speech(wave, SAMPLE_RATE, parameters)

    def _source_norms(self, name: str) -> SpeakerNorms:
        if name not in self._norms:
            self._norms[name] = speaker_norms(analyse(self._say(name, _CALIBRATION, ProsodyTargets(), 140.0)))
        return self._norms[name]

    def _say(self, name: str, text: str, targets: ProsodyTargets, f0_hz: float) -> Wave:
        import soundfile

        with tempfile.TemporaryDirectory(prefix="flite-") as folder:
            output = Path(folder) / "speech.wav"
            command = flite_command(self._program(), name, text, output, targets, f0_hz)
            done = subprocess.run(command, capture_output=True, timeout=_SECONDS, check=False)  # noqa: S603 (a list, no shell)
            if done.returncode or not output.is_file():
                raise RecordError("SYNTHESIS_FAILED", f"flite failed on '{text[:60]}': {done.stderr[-200:]!r}")
            wave, rate = soundfile.read(output, dtype="float32")
        return resampled(wave, rate)

    def _program(self) -> str:
        path = shutil.which(self._name)
        if path is None:
            raise ConfigError(
                f"tts back end 'flite': the program '{self._name}' is not installed. Install it with your system's "
                "packages (Debian and Ubuntu: apt install flite), or choose the back end 'espeak'."
            )
        return path
