"""What the daemon logs, as text or as one JSON object a line.

Servers are quoted in it, so a line of the log begins only where mcpgw begins one: what a quoted
text has of line ends is indented, and of other control characters made visible.
"""

from __future__ import annotations

import json
import logging
import os
import re
import time

_LINE = "%(asctime)s %(levelname)-7s %(name)s: %(message)s"
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029]")


def set_up(log_format: str) -> None:
    handler = logging.StreamHandler()
    handler.setFormatter(_JsonLines() if log_format == "json" else _Lines(_LINE))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    level = os.environ.get("MCPGW_LOG", "info").upper()
    names = logging.getLevelNamesMapping()
    logging.getLogger("mcpgw").setLevel(names.get(level, logging.INFO))


class _Lines(logging.Formatter):
    """Text."""

    def format(self, record: logging.LogRecord) -> str:
        text = _CONTROL.sub(lambda found: f"\\x{ord(found[0]):02x}", super().format(record))
        return text.replace("\n", "\n    ")


class _JsonLines(logging.Formatter):
    """One JSON object a line."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, object] = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(record.created)),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info and record.exc_info[0] is not None:
            line["error"] = record.exc_info[0].__name__
            line["traceback"] = self.formatException(record.exc_info)
        text = json.dumps(line, ensure_ascii=False)
        return _CONTROL.sub(lambda found: f"\\u{ord(found[0]):04x}", text)
