"""Configuration as files."""
