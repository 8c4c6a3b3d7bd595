"""Role `emotion`, embedded: a small linear classifier over prosody, trained by `data-engine train emotion`.

It knows acted German of ten speakers in one studio; assets/emotion_prosody/MODEL_CARD.md says what that is worth.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
from collections.abc import Sequence
from pathlib import Path

from data_engine.backends.protocols import Wave
from data_engine.backends.protocols_listening import Emotion
from data_engine.core.errors import ConfigError
from data_engine.models.emotion_classifier import EmotionClassifier, read_classifier
from data_engine.models.prosody import SAMPLE_RATE, prosody

MODEL = Path(__file__).parent.parent / "assets" / "emotion_prosody" / "model.json"


class ProsodyEmotion:
    """Tells angry, happy, neutral and sad speech apart by pitch, energy, rate and voice quality of the clip alone.

    Args:
        model: JSON file of `data-engine train emotion`; default: the one this package carries.
    """

    sample_rate = SAMPLE_RATE

    def __init__(self, model: str | None = None) -> None:
        self._path = Path(model) if model else MODEL
        self.emotions: tuple[str, ...] = ()
        self._classifier: EmotionClassifier | None = None

    @property
    def revision(self) -> str:
        """SHA-256 of the coefficients, shortened, and the version of the pitch tracker.

        Raises:
            ConfigError: The file is missing.
        """
        try:
            content = self._path.read_bytes()
        except OSError as error:
            raise ConfigError(f"cannot read the emotion classifier '{self._path}': {error.strerror}") from error
        return f"prosody-{hashlib.sha256(content).hexdigest()[:16]}-pyworld-{_pyworld()}"

    def open(self) -> None:
        """Reads the coefficients.

        Raises:
            ConfigError: The file is missing or is no such classifier.
        """
        self._classifier = read_classifier(self._path)
        self.emotions = self._classifier.emotions

    def recognize(self, waves: Sequence[Wave]) -> list[Emotion | None]:
        """Returns the likeliest emotion of each wave; None where there is less than 0.3 s of speech.

        Args:
            waves: float32 [samples] each, 16 kHz.

        Raises:
            MissingExtraError: pyworld is not installed.
        """
        assert self._classifier is not None, "open() first"
        found: list[Emotion | None] = [None] * len(waves)
        for number, wave in enumerate(waves):
            measured = prosody(wave)
            if measured is not None:
                posteriors = self._classifier.posteriors(self._classifier.rows([measured]))[0]
                best = int(posteriors.argmax())
                found[number] = Emotion(self.emotions[best], float(posteriors[best]))
        return found

    def close(self) -> None:
        """Lets go of the coefficients."""
        self._classifier = None


def _pyworld() -> str:
    try:
        return importlib.metadata.version("pyworld")
    except importlib.metadata.PackageNotFoundError:
        return "missing"
