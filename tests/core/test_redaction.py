"""Credentials are taken out of everything that is shown, and kept out of what is configured."""

import pytest

from data_engine.core.errors import ConfigError
from data_engine.core.redaction import holds_credentials, public_uri, redact, refuse_credentials, refuse_secret_uri


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("s3://AKIA1:abc/def+g@bucket/x", "s3://***@bucket/x"),
        ("cannot connect to http://user:pw@host:9000/b", "cannot connect to http://***@host:9000/b"),
        (
            "https://h/x.wav?X-Amz-Date=1&X-Amz-Signature=abc123&n=2",
            "https://h/x.wav?X-Amz-Date=1&X-Amz-Signature=***&n=2",
        ),
        ("https://h/x?sv=2024&sig=a%2Fb", "https://h/x?sv=2024&sig=***"),
        ("{'secret': 'shhh', 'anon': False}", "{'secret': '***', 'anon': False}"),
        ("aws_secret_access_key = shhh", "aws_secret_access_key = ***"),
        ("Authorization: AWS4-HMAC-SHA256 Credential=A, Signature=b", "Authorization: ***"),
        ("sent Bearer abcdefgh.ijk", "sent Bearer ***"),
        ("key AKIAIOSFODNN7EXAMPLE is unknown", "key *** is unknown"),
    ],
)
def test_what_looks_like_a_credential_is_hidden(text, shown):
    assert redact(text, {}) == shown


@pytest.mark.parametrize(
    "text",
    [
        "s3://bucket/a:b@c.wav", "https://host:8080/npm/@scope/x.wav", "sftp://ann@host/x", "/data/a:b@c.wav",
        "abfs://box@account.dfs.core.windows.net/x", "token 'abc' is not in the vocabulary", "SILENT: peak -80 dBFS",
        "https://h/x.wav?versionId=3", "gs://bucket/x#1",
    ],
)  # fmt: skip
def test_everything_else_stays(text):
    assert redact(text, {}) == text
    assert not holds_credentials(text)


def test_values_of_the_environment_are_hidden_wherever_they_appear():
    environ = {
        "AWS_SECRET_ACCESS_KEY": "plain words 1234", "HF_TOKEN": "hf_abcdefgh",
        "AWS_SHARED_CREDENTIALS_FILE": "/home/x", "API_KEY": "short", "PATH": "/usr/bin:/bin",
    }  # fmt: skip
    text = "plain words 1234 | hf_abcdefgh | /home/x | short | /usr/bin:/bin"
    assert redact(text, environ) == "*** | *** | /home/x | short | /usr/bin:/bin"


def test_a_local_path_is_shown_as_it_is():
    assert public_uri("/data/what?key=C.wav") == "/data/what?key=C.wav"
    assert public_uri("https://h/what?key=C.wav") == "https://h/what?key=***"


def test_a_configuration_with_credentials_is_refused_without_repeating_them():
    with pytest.raises(ConfigError, match=r"^output: 's3://\*\*\*@bucket/x' holds a password") as caught:
        refuse_secret_uri("s3://key:hunter2@bucket/x", "output")
    assert "hunter2" not in str(caught.value)
    with pytest.raises(ConfigError, match=r"^output_options\.client_kwargs\.aws_secret_access_key: .*environment"):
        refuse_credentials({"client_kwargs": {"aws_secret_access_key": "x"}}, "output_options")
    with pytest.raises(ConfigError, match=r"^output_options\.token"):
        refuse_credentials({"token": "ya29.abc"}, "output_options")
    refuse_credentials({"anon": True, "token": "anon", "retry": {"attempts": 3}, "secret": None}, "output_options")
