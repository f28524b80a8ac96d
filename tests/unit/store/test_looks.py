from __future__ import annotations

import base64
import random
import secrets
import string

import pytest

from mcpgw.store.looks import (
    is_reference,
    looks_secret,
    masked,
    masked_url,
    masked_words,
    sensitive_name,
)

# Put together here, so that no scanner takes this file for a leak.
TOKENS = [
    "ghp_" + "16C7e42F292c6912E7710c838347Ae178B4a",
    "github_pat_" + "11ABCDEFG0123456789_abcdefghijklmnopqrstuvwxyz",
    "glpat-" + "ABCdefGHI123jklMNO45",
    "sk-" + "proj-abcdefghij0123456789",
    "sk-" + "ant-api03-abcdefghij0123456789",
    "sk_" + "live_51H8xabcDEF1234567890",
    "xox" + "b-123456789012-abcdefABCDEF",
    "AKIA" + "IOSFODNN7EXAMPLE",
    "AIza" + "SyA1234567890abcdefghijklmnopqrstuv",
    "eyJhbGciOiJIUzI1NiJ9" + ".eyJzdWIiOiIxMjM0NTY3ODkwIn0.dozjgNryP4J3jVmNHl0w5N_XgL0n3I9P",
    "npm_" + "abcdefghijklmnopqrstuvwxyz0123456789",
    "hf_" + "abcdefghijABCDEFGHIJ0123456789",
    "mcpgw_" + "k3J9x2LmQp7RtVwYzAbCdEfGhIjKlMnOpQrStUvWxY0",
    "Bearer abcdef123456",
    "Authorization: Bearer abcdef",
    "basic dXNlcjpwYXNz",
    "token 0123456789abcdef0123",
    "d41d8cd98f00b204e9800998ecf8427e",
    "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY1a2b",
    "https://user:hunter2@example.com/",
    "https://example.com/mcp?token=abcdef",
    "https://example.com/mcp?a=b&api_key=k123456",
    "https://example.com/mcp?X-Amz-Signature=abcdef012345",
    "postgres://app:s3cret@db/prod",
    "--password=hunter2",
    "DB_PASSWORD=hunter2",
    "--api-key=abc12345",
    "GITHUB_TOKEN: abcd1234efgh",
    "-----BEGIN RSA PRIVATE KEY-----",
]

ORDINARY = [
    "",
    "npx",
    "-y",
    "@modelcontextprotocol/server-filesystem",
    "@modelcontextprotocol/server-everything@2026.7.28",
    "/usr/local/lib/python3.11/site-packages/mcpgw/store/secrets.py",
    "/home/user/projects/2024-11-05-notes/chapter12/draft-v3.md",
    r"C:\Users\me\AppData\Local\Programs\Python\Python311\python.exe",
    "https://example.com/mcp",
    "https://mcp.example.com:8443/v1/servers/github?team=platform&version=2025-11-25",
    "https://example.com/mcp?token=${TOKEN}",
    "https://example.com/mcp?token={token}",
    "123e4567-e89b-12d3-a456-426614174000",
    "https://example.com/tenants/123e4567-e89b-12d3-a456-426614174000/mcp",
    "--tenant=123e4567-e89b-12d3-a456-426614174000",
    "ghcr.io/github/github-mcp-server:v1.2.3",
    "image@sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
    "git+https://github.com/org/repo@9f86d081884c7d659a2feaa0c55ad015a3bf4f1b",
    "org.springframework.boot.autoconfigure.SpringBootApplication",
    "my-very-long-service-name-in-production-eu-west-1b-2024",
    "AVeryLongCamelCaseIdentifierForSomeJavaClassName",
    "application/json; charset=utf-8",
    "2026-07-28T12:34:56.789012+00:00",
    "--token=env:GITHUB_TOKEN",
    "--token=$TOKEN",
    "--max-tokens=4096",
    "--auth=none",
    "token",
    "tokens are counted in this mode",
    "password",
    "env:GITHUB_TOKEN",
    "vault:github/TOKEN",
    "file:/run/secrets/token",
    "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin",
    "x" * 200,
    "1" * 64,
    "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36",
]


@pytest.mark.parametrize("text", TOKENS)
def test_what_looks_like_a_secret(text: str) -> None:
    assert looks_secret(text)


@pytest.mark.parametrize("text", ORDINARY)
def test_what_does_not(text: str) -> None:
    assert not looks_secret(text)


def test_nearly_all_random_tokens_are_caught() -> None:
    chance = random.Random(1)
    alphabets = {
        "hex": ("0123456789abcdef", 32),
        "letters": (string.ascii_letters + string.digits, 32),
        "url": (string.ascii_letters + string.digits + "-_", 43),
        "lower": (string.ascii_lowercase + string.digits, 32),
    }
    for name, (alphabet, length) in alphabets.items():
        made = ["".join(chance.choices(alphabet, k=length)) for _ in range(500)]
        caught = sum(map(looks_secret, made))
        assert caught >= 480, (name, caught)


@pytest.mark.parametrize("attempt", range(5))
def test_ones_own_secrets_are_caught(attempt: int) -> None:
    assert looks_secret("mcpgw_" + base64.urlsafe_b64encode(secrets.token_bytes(32)).decode())


@pytest.mark.parametrize(
    ("text", "known"),
    [
        ("env:NAME", True),
        ("os.environ/NAME", True),
        ("file:/run/secrets/x", True),
        ("file:relative path", True),
        ("keyring:github", True),
        ("keyring:service/name", True),
        ("vault:github/TOKEN", True),
        ("env:", False),
        ("env:1X", False),
        ("env:A B", False),
        ("Env:X", False),
        ("os.environ/", False),
        ("vault:", False),
        ("vault:a b", False),
        ("file:", False),
        ("plain", False),
        ("", False),
        (" env:X", False),
        ("env:X\n", False),
    ],
)
def test_references(text: str, known: bool) -> None:
    assert is_reference(text) is known


@pytest.mark.parametrize(
    "name", ["--api-key", "GITHUB_TOKEN", "x-api-key", "password", "Authorization"]
)
def test_sensitive_names(name: str) -> None:
    assert sensitive_name(name)


@pytest.mark.parametrize("name", ["--verbose", "max-tokens", "X-Team", "AUTHOR", "keyboard"])
def test_names_that_are_not_sensitive(name: str) -> None:
    assert not sensitive_name(name)


def test_masks() -> None:
    assert masked({"A": "env:A", "B": "b", "C": ""}) == {"A": "env:A", "B": "***", "C": "***"}
    assert masked_words(["x", "--token", "abc", "--token", "env:T", "--secret", "-v"]) == [
        "x",
        "--token",
        "***",
        "--token",
        "env:T",
        "--secret",
        "-v",
    ]
    assert (
        masked_url("https://u:p@h:1/a?b=c&token=abcdefg#f") == "https://***@h:1/a?b=c&token=***#f"
    )
    assert masked_url("https://h/a") == "https://h/a"
    assert masked_url("http://[bad") == "***"
