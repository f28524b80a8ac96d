"""The gateway with other constants: `python -m tests.e2e.hasty ARGUMENT...`.

HASTY has them, as JSON: {"mcpgw.front.sessions.IDLE": 1}. What takes hours can be seen so in a
real process.
"""

from __future__ import annotations

import importlib
import json
import os

if __name__ == "__main__":
    for place, value in json.loads(os.environ["HASTY"]).items():
        module, _, name = place.rpartition(".")
        setattr(importlib.import_module(module), name, value)
    importlib.import_module("mcpgw.__main__").main()
