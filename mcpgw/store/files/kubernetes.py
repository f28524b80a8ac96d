"""A Kubernetes Secret manifest: its values go to the vault, under the names they have there.

In a cluster nothing needs to be imported: mounted, a value is `file:PATH`; in the environment it
is `env:NAME`.
"""

from __future__ import annotations

import re
from base64 import b64decode
from binascii import Error as NotBase64
from collections.abc import Mapping
from typing import Any

from mcpgw.store.files.brought import Basket, members, plain

_PLACEHOLDER = re.compile(r"\s*(?:<[^<>]*>|\$\{[^{}]*\}|\{\{.*\}\})?\s*")


def is_secret(tree: Mapping[str, Any]) -> bool:
    """Whether this is such a manifest."""
    return tree.get("kind") == "Secret" and tree.get("apiVersion") == "v1"


def bring(tree: Mapping[str, Any], basket: Basket) -> None:
    """Put what `tree` has into `basket`."""
    for field in ("data", "stringData"):  # in this order: the second one wins in a cluster too
        for name, raw in members(tree.get(field)).items():
            value = plain(raw)
            if field == "data":
                try:
                    value = b64decode(value, validate=True).decode().removesuffix("\n")
                except (NotBase64, ValueError):
                    basket.report((field, name), "is not base64 of a text, so it is left out")
                    continue
            if _PLACEHOLDER.fullmatch(value):
                basket.report((field, name), f"is a placeholder: mcpgw secret set {name}")
            else:
                basket.seals[name] = value
                basket.report((field, name), f"is sealed as vault:{name}")
