"""The back end `pii: presidio` with the real library and a real spaCy pipeline that the test builds."""

import pytest

from data_engine.backends.catalog import build_backend
from data_engine.core.errors import ConfigError

spacy = pytest.importorskip("spacy")
pytest.importorskip("presidio_analyzer")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A spaCy pipeline on disk that knows two people."""
    folder = tmp_path_factory.mktemp("models") / "en_people"
    pipeline = spacy.blank("en")
    ruler = pipeline.add_pipe("entity_ruler")
    ruler.add_patterns(
        [{"label": "PERSON", "pattern": [{"LOWER": first}, {"LOWER": last}]}
         for first, last in (("anna", "lee"), ("peter", "novak"))]
    )  # fmt: skip
    pipeline.to_disk(folder)
    return str(folder)


@pytest.fixture(scope="module")
def detector(model):
    opened = build_backend("pii", "presidio", {"models": {"en": model}})
    opened.open()
    return opened


def found(detector, text, language="en"):
    return [(s.kind, text[s.start : s.end]) for s in detector.find([text], language)[0] if s.score >= 0.5]


def test_names_are_found_beside_what_the_patterns_find(detector):
    text = "anna lee said my number is four one five five five five two six seven one"
    expected = [("PERSON", "anna lee"), ("PHONE", "four one five five five five two six seven one")]
    assert found(detector, text) == expected
    assert found(detector, text, "en-GB") == expected
    assert found(detector, "Peter Novak writes from peter@example.com") == [
        ("PERSON", "Peter Novak"), ("EMAIL", "peter@example.com"),
    ]  # fmt: skip


def test_presidio_itself_is_at_work(detector):
    assert found(detector, "My passport and card 4111 1111 1111 1111") == [("CARD", "4111 1111 1111 1111")]
    assert found(detector, "call (212) 555-0187, it is (425) 882-8080") == [
        ("PHONE", "(212) 555-0187"), ("PHONE", "(425) 882-8080"),
    ]  # fmt: skip
    assert found(detector, "nobody in particular said nothing") == []


def test_other_languages_have_the_patterns_alone(detector):
    assert found(detector, "anna lee 的电话是13800138000", "zh") == [("PHONE", "13800138000")]


def test_only_the_entities_asked_for(model):
    people = build_backend("pii", "presidio", {"models": {"en": model}, "entities": ["PERSON"]})
    people.open()
    assert "PERSON" in people.kinds
    assert found(people, "anna lee has 536-22-8726") == [("PERSON", "anna lee"), ("NATIONAL_ID", "536-22-8726")]


def test_the_revision_names_the_model(model, tmp_path):
    first = build_backend("pii", "presidio", {"models": {"en": model}}).revision
    assert first == build_backend("pii", "presidio", {"models": {"en": model}}).revision
    spacy.blank("en").to_disk(tmp_path / "other")
    assert first != build_backend("pii", "presidio", {"models": {"en": str(tmp_path / "other")}}).revision


def test_nothing_is_downloaded(tmp_path):
    with pytest.raises(ConfigError, match="no_such_model"):
        build_backend("pii", "presidio", {"models": {"en": "no_such_model"}}).open()
    with pytest.raises(ConfigError, match="models"):
        build_backend("pii", "presidio", {}).open()
