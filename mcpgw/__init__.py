"""mcpgw: one gateway in front of every Model Context Protocol server."""

__version__ = "0.1.0"
