"""Role `pii` by Presidio: names and the ids of many countries, with a language model of spaCy or transformers."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

from data_engine.backends.codec_files import files_hash
from data_engine.backends.pii.patterns import PatternDetector, distinct
from data_engine.backends.protocols import PiiSpan
from data_engine.core.errors import ConfigError, MissingExtraError

_PURPOSE = "the pii back end 'presidio'"
_NATIONAL = (
    "AU_TFN CA_SIN DE_ID_CARD DE_PASSPORT DE_SOCIAL_SECURITY DE_TAX_ID ES_NIE ES_NIF FI_PERSONAL_IDENTITY_CODE "
    "IN_AADHAAR IN_PAN IT_FISCAL_CODE KR_RRN NG_NIN PL_PESEL SE_PERSONNUMMER SG_NRIC_FIN TH_TNIN TR_NATIONAL_ID "
    "UK_NHS UK_NINO US_ITIN US_PASSPORT US_SSN ZA_ID_NUMBER"
)
KINDS: Mapping[str, str] = {
    "PERSON": "PERSON", "PHONE_NUMBER": "PHONE", "CREDIT_CARD": "CARD", "IBAN_CODE": "IBAN", "IP_ADDRESS": "IP",
    "EMAIL": "EMAIL", **dict.fromkeys(_NATIONAL.split(), "NATIONAL_ID"),
}  # fmt: skip
"""Presidio's entities that are looked for unless told otherwise, and the kinds they are."""
_ONLINE = ("EmailRecognizer", "UrlRecognizer")
"""They fetch a list of domains when first used; `patterns` finds e-mail addresses."""


class PresidioDetector:
    """What Presidio finds, and what `patterns` does, which reads spoken numbers; nothing is downloaded.

    Args:
        models: Per language the model: for `spacy` a folder or an installed package, for `transformers`
            {"spacy": ..., "transformers": ...}. Texts in other languages are searched by `patterns` alone.
        engine: `spacy` or `transformers`.
        entities: Presidio's names of what to look for; None: those of `KINDS`.
        ner: Fields of Presidio's NerModelConfiguration, for example {"default_score": 0.6}.
    """

    def __init__(
        self,
        models: Mapping[str, Any] | None = None,
        engine: Literal["spacy", "transformers"] = "spacy",
        entities: Sequence[str] | None = None,
        ner: Mapping[str, Any] | None = None,
    ) -> None:
        if engine not in ("spacy", "transformers"):
            raise ConfigError(f"{_PURPOSE}: engine is 'spacy' or 'transformers', got '{engine}'")
        self._models = dict(models or {})
        self._engine, self._ner = engine, dict(ner or {})
        self._entities = tuple(KINDS if entities is None else entities)
        self._patterns = PatternDetector()
        self._analyzer: Any = None
        self.kinds = frozenset(KINDS.get(name, name) for name in self._entities) | self._patterns.kinds

    @property
    def revision(self) -> str:
        """Versions of the libraries and a hash of the models.

        Raises:
            MissingExtraError: Presidio is not installed.
            ConfigError: A model is missing.
        """
        try:
            versions = [metadata.version(name) for name in ("presidio-analyzer", "spacy", "phonenumbers")]
        except metadata.PackageNotFoundError as error:
            raise MissingExtraError("presidio-analyzer", "presidio", _PURPOSE) from error
        models = [f"{language} {_model_hash(path)}" for language, path in sorted(self._paths())]
        found = hashlib.sha256("\n".join((*versions, *models, self._patterns.revision)).encode()).hexdigest()
        return f"presidio-{versions[0]}-{found[:16]}"

    def open(self) -> None:
        """Loads the models.

        Raises:
            MissingExtraError: Presidio is not installed, or transformers where they are asked for.
            ConfigError: A model is missing or no language has one.
        """
        if find_spec("presidio_analyzer") is None:
            raise MissingExtraError("presidio-analyzer", "presidio", _PURPOSE)
        if not self._models:
            raise ConfigError(f"{_PURPOSE} needs option 'models', for example {{en: FOLDER}} with a spaCy pipeline")
        for _, model in self._paths():
            _check(model)
        self._analyzer = _analyzer(self._models, self._engine, self._ner)

    def close(self) -> None:
        """Frees them."""
        self._analyzer = None

    def find(self, texts: Sequence[str], language: str | None) -> list[list[PiiSpan]]:
        """Returns the spans of each text, in order, none overlapping another."""
        shaped = self._patterns.find(texts, language)
        name = (language or "").lower().replace("_", "-").partition("-")[0]
        if name not in self._models:
            return shaped
        return [distinct([*known, *self._spans(text, name)]) for text, known in zip(texts, shaped, strict=True)]

    def _spans(self, text: str, language: str) -> list[PiiSpan]:
        assert self._analyzer is not None
        wanted = sorted(set(self._entities) & set(self._analyzer.get_supported_entities(language)))
        if not wanted or not text.strip():
            return []
        found = self._analyzer.analyze(text=text, language=language, entities=wanted)
        return [PiiSpan(KINDS.get(r.entity_type, r.entity_type), r.start, r.end, float(r.score)) for r in found]

    def _paths(self) -> list[tuple[str, str]]:
        """Returns language and place of each model, two for `transformers`."""
        pairs = [(name, part) for name, model in self._models.items() for part in _parts(model)]
        return [(name, str(part)) for name, part in pairs]


def _parts(model: Any) -> list[Any]:
    return [model[key] for key in sorted(model)] if isinstance(model, Mapping) else [model]


def _check(model: str) -> None:
    # Presidio downloads what it does not find; an engine without a network must say so instead.
    if not Path(model).is_dir() and find_spec(model.split(".")[0]) is None:
        raise ConfigError(f"{_PURPOSE}: '{model}' is no folder and no installed package")


def _model_hash(model: str) -> str:
    folder = Path(model)
    if folder.is_dir():
        return files_hash(sorted(path for path in folder.rglob("*") if path.is_file()))
    _check(model)
    return metadata.version(model)


def _analyzer(models: Mapping[str, Any], engine: str, ner: Mapping[str, Any]) -> Any:
    """Returns Presidio's AnalyzerEngine over the models, without the recognizers that need a network."""
    from presidio_analyzer import AnalyzerEngine, RecognizerRegistry
    from presidio_analyzer.nlp_engine import NerModelConfiguration, SpacyNlpEngine, TransformersNlpEngine

    kind = SpacyNlpEngine if engine == "spacy" else TransformersNlpEngine
    if not kind.is_available:
        raise MissingExtraError("spacy-huggingface-pipelines", "presidio", f"{_PURPOSE} with transformers")
    named = [{"lang_code": name, "model_name": model} for name, model in sorted(models.items())]
    nlp = kind(models=named, ner_model_configuration=NerModelConfiguration(**ner))
    nlp.load()
    languages = sorted(models)
    registry = RecognizerRegistry(supported_languages=languages)
    registry.load_predefined_recognizers(languages=languages, nlp_engine=nlp)
    for name in _ONLINE:
        registry.remove_recognizer(name)
    return AnalyzerEngine(registry=registry, nlp_engine=nlp, supported_languages=languages)
