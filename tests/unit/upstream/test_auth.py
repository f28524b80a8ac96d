"""Static credentials and forwarded fields."""

from __future__ import annotations

import base64

import pytest

from mcpgw.core.references import is_reference
from mcpgw.model.ports import UpstreamError
from mcpgw.store import looks
from mcpgw.upstream import auth
from tests.doubles import PlainSecrets, context, server, snapshot

SECRETS = PlainSecrets({"env:TOKEN": "t0p", "file:/pw": "user:pa:ss\n", "env:BAD": "a\r\nb: c"})


@pytest.mark.parametrize(
    ("kind", "secret", "field"),
    [
        ("api-key", "env:TOKEN", ("x-api-key", "t0p")),
        ("bearer", "env:TOKEN", ("authorization", "Bearer t0p")),
        ("token", "env:TOKEN", ("authorization", "token t0p")),
        ("bearer", "literal", ("authorization", "Bearer literal")),
        (
            "basic",
            "file:/pw",
            ("authorization", "Basic " + base64.b64encode(b"user:pa:ss").decode()),
        ),
    ],
)
def test_each_kind_of_credential(kind: str, secret: str, field: tuple[str, str]) -> None:
    one = server("s", auth=kind, secret=secret)

    assert auth.headers(one, SECRETS) == [field]


def test_headers_may_be_references_and_auth_wins() -> None:
    one = server(
        "s",
        auth="bearer",
        secret="env:TOKEN",
        headers={"X-Team": "blue", "X-Key": "env:TOKEN", "Authorization": "Basic old"},
    )

    assert auth.headers(one, SECRETS) == [
        ("x-team", "blue"),
        ("x-key", "t0p"),
        ("authorization", "Bearer t0p"),
    ]


def test_a_missing_secret_names_only_its_reference() -> None:
    with pytest.raises(UpstreamError) as caught:
        auth.headers(server("s", headers={"x-key": "env:NONE"}), SECRETS)

    assert caught.value.stage == "auth"
    assert "env:NONE" in caught.value.message


def test_a_secret_with_line_ends_is_refused_and_not_shown() -> None:
    with pytest.raises(UpstreamError) as caught:
        auth.headers(server("s", auth="bearer", secret="env:BAD"), SECRETS)

    assert "b: c" not in caught.value.message


def test_a_server_that_repeats_its_credential_is_not_quoted() -> None:
    one = server("s", auth="basic", secret="env:USER", headers={"X": "env:TOKEN", "Y": "plain"})
    secrets = PlainSecrets({"env:USER": "ann:pw", "env:TOKEN": "s3cret"})
    said = UpstreamError("handshake", "refused s3cret, ann:pw, YW5uOnB3 and plain", permanent=True)
    kept = auth.redacted(said, one, secrets)
    assert kept.message == "refused [redacted], [redacted], [redacted] and plain"
    assert (kept.stage, kept.permanent) == ("handshake", True)
    gone = PlainSecrets({})
    assert auth.redacted(said, one, gone) is said


def test_only_listed_headers_are_forwarded_and_never_a_credential() -> None:
    one = server("s", forward_headers=("X-Tenant", "Authorization", "x-api-key", "Mcp-Name"))
    ctx = context(
        snapshot(one),
        headers={
            "x-tenant": "a",
            "x-other": "b",
            "authorization": "Bearer mcpgw_key",
            "x-api-key": "mcpgw_key",
            "mcp-name": "n",
        },
    )

    assert auth.forwarded(one, ctx) == [("x-tenant", "a")]


@pytest.mark.parametrize(
    "text",
    [
        "env:A_1",
        "env:",
        "env:a b",
        "os.environ/X",
        "file:/a b",
        "file:",
        "file: x",
        "keyring:s/n",
        "vault:x",
        "vault:x y",
        "Bearer env:X",
        "literal",
    ],
)
def test_the_store_and_the_links_agree_on_what_a_reference_is(text: str) -> None:
    assert is_reference(text) == looks.is_reference(text)
