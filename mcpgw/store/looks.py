"""What a reference looks like, what a secret looks like, and how to hide one.

`looks_secret` guesses. It is meant for words that a person typed: it knows the marks of common
tokens, the places where secrets stand (`password=…`, `?token=…`, `Bearer …`) and the look of random
text, and lets paths, names, versions, UUIDs and digests of images and commits pass.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Final
from urllib.parse import urlsplit, urlunsplit

MASK: Final = "***"

_REFERENCE = re.compile(
    r"(?:env:|os\.environ/)[A-Za-z_][A-Za-z0-9_]*"
    r"|file:[^\s\0][^\0\n]*"
    r"|keyring:[^\s\0][^\0\n]*"
    r"|vault:[^\s\0]+"
)

_TOKENS = re.compile(
    r"(?<![A-Za-z0-9])(?:"
    r"gh[oprsu]_[A-Za-z0-9]{20,}|github_pat_\w{20,}"
    r"|glpat-[\w-]{16,}"
    r"|(?:sk|rk|pk)[-_](?:live|test|ant|proj|or|svcacct)[-_][\w-]{8,}|sk-[A-Za-z0-9_-]{16,}"
    r"|xox[a-z]-[\w-]{10,}|xapp-[\w-]{10,}"
    r"|(?:AKIA|ASIA)[A-Z0-9]{16}"
    r"|AIza[\w-]{30,}|ya29\.[\w-]{20,}"
    r"|eyJ[\w-]{8,}\.[\w-]{8,}(?:\.[\w-]*)?"
    r"|npm_[A-Za-z0-9]{30,}|pypi-[\w-]{30,}|hf_[A-Za-z0-9]{20,}"
    r"|dop_v1_[a-f0-9]{32,}|SG\.[\w-]{16,}\.[\w-]{16,}|shp(?:at|ss)_[a-fA-F0-9]{20,}"
    r"|dckr_pat_[\w-]{16,}|lin_api_\w{20,}|ntn_\w{20,}|secret_[A-Za-z0-9]{30,}"
    r"|mcpgw_[\w-]{20,}"
    r")"
)
_PRIVATE_KEY = re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----")
_AUTHORIZATION = re.compile(
    r"(?:^|[\s:=\"'])(?:bearer\s+[^\s{$<]{6,}|basic\s+[A-Za-z0-9+/=]{8,}|token\s+[^\s{$<]{16,})",
    re.IGNORECASE,
)
_SENSITIVE_NAME = (
    r"(?:[\w.-]*[_.-])?(?:password|passwd|pwd|passphrase|secret|token|api[-_]?key|apikey|"
    r"access[-_]?key|private[-_]?key|client[-_]?secret|credentials?|auth|authorization|"
    r"sig|signature)"
)
_NAMED = re.compile(rf"^-{{0,2}}({_SENSITIVE_NAME})\s*[=:]\s*(\S.*)$", re.IGNORECASE | re.DOTALL)
_NAME = re.compile(rf"^-{{0,2}}{_SENSITIVE_NAME}$", re.IGNORECASE)
_PASSWORD = re.compile(r"pass|pwd", re.IGNORECASE)
_PLACEHOLDER = re.compile(
    r"[$<{%]|^(?:true|false|none|null|yes|no|required|optional|\d{1,5})$", re.I
)
_HARMLESS = re.compile(r"(?i)\d*|true|false|yes|no|on|off|none|null")
_QUERY_KEY = re.compile(rf"^(?:{_SENSITIVE_NAME}|key|code)$", re.IGNORECASE)

_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", re.IGNORECASE)
# `image@sha256:…`, `git+https://…@COMMIT`, `#COMMIT`: public by nature.
_DIGEST = re.compile(
    r"(?:@|#|\bsha(?:1|256|384|512)[:-])[A-Za-z0-9+/]{32,}={0,2}(?![A-Za-z0-9])", re.I
)
_RUN = re.compile(r"[A-Za-z0-9+]{20,}={0,2}")
_WORD = re.compile(r"[A-Za-z0-9_~+-]{32,}={0,2}")
_LONG = 0.25  # turns of character class per character: random text has 0.4 to 0.7, names 0.1


def is_reference(text: str) -> bool:
    """Whether `text` names a secret instead of being one.

    `env:NAME`, `os.environ/NAME`, `file:PATH`, `keyring:[SERVICE/]NAME`, `vault:NAME`.
    """
    return _REFERENCE.fullmatch(text) is not None


def looks_secret(text: str) -> bool:
    """Whether a typed word (an argument, a header's value, a URL) seems to hold a secret."""
    if is_reference(text):
        return False
    if _TOKENS.search(text) or _PRIVATE_KEY.search(text) or _AUTHORIZATION.search(text):
        return True
    if (named := _NAMED.match(text)) and _gives_away(named[1], named[2].strip("\"'")):
        return True
    if "://" in text and _url_gives_away(text):
        return True
    return _looks_random(_DIGEST.sub(" ", _UUID.sub(" ", text)))


def sensitive_name(name: str) -> bool:
    """Whether a variable, a header or an option of this name usually carries a secret."""
    return _NAME.match(name) is not None


def literal_secret(name: str, value: str) -> bool:
    """Whether a literal `value` of the variable, header or option `name` seems to be a secret."""
    if _HARMLESS.fullmatch(value) or is_reference(value):
        return False
    return sensitive_name(name) or looks_secret(value)


def masked(values: Mapping[str, str]) -> dict[str, str]:
    """The values that are references, and a mask for every other."""
    return {name: value if is_reference(value) else MASK for name, value in values.items()}


def masked_words(words: Sequence[str]) -> list[str]:
    """A command line without what looks like a secret."""
    shown: list[str] = []
    for index, word in enumerate(words):
        after_name = (
            index > 0 and words[index - 1].startswith("-") and sensitive_name(words[index - 1])
        )
        hide = looks_secret(word) or (after_name and not is_reference(word) and word[:1] != "-")
        shown.append(MASK if hide else word)
    return shown


def masked_url(url: str) -> str:
    """A URL without a password and without values in its query that look like secrets."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return MASK
    where = parts.netloc
    if "@" in where:
        where = f"{MASK}@{where.rpartition('@')[2]}"
    pairs = (pair.partition("=") for pair in parts.query.split("&"))
    query = "&".join(
        f"{name}{equals}{MASK if _pair_gives_away(name, value) else value}"
        for name, equals, value in pairs
    )
    path = "/".join(MASK if looks_secret(one) else one for one in parts.path.split("/"))
    fragment = MASK if looks_secret(parts.fragment) else parts.fragment
    return urlunsplit((parts.scheme, where, path, query, fragment))


def _gives_away(name: str, value: str) -> bool:
    if is_reference(value) or _PLACEHOLDER.search(value):
        return False
    if _PASSWORD.search(name):
        return len(value) >= 4
    mixed = any(c.isdigit() for c in value) and any(c.isalpha() for c in value)
    return (len(value) >= 8 and mixed and "/" not in value) or len(value) >= 24


def _url_gives_away(text: str) -> bool:
    try:
        parts = urlsplit(text)
    except ValueError:
        return False
    user, _, password = parts.netloc.rpartition("@")[0].partition(":")
    if (password and not _PLACEHOLDER.search(password)) or looks_secret(user):
        return True
    pairs = (pair.partition("=") for pair in parts.query.split("&"))
    return any(_pair_gives_away(name, value) for name, _, value in pairs)


def _pair_gives_away(name: str, value: str) -> bool:
    if not value or is_reference(value) or _PLACEHOLDER.search(value):
        return False
    return (_QUERY_KEY.match(name) is not None and len(value) >= 6) or looks_secret(value)


def _looks_random(text: str) -> bool:
    if any(_is_random(run, 2) for run in _RUN.findall(text)):
        return True
    return any(_is_random(word, 3) for word in _WORD.findall(text))


def _is_random(word: str, classes: int) -> bool:
    """Digits among letters, and the kind of character changes again and again."""
    kinds = [_kind(c) for c in word if c.isalnum()]
    if "9" not in kinds or len(set(kinds)) < classes:
        return False
    turns = sum(one != other for one, other in pairwise(kinds))
    return turns >= _LONG * len(kinds)


def _kind(c: str) -> str:
    return "9" if c.isdigit() else "A" if c.isupper() else "a"
