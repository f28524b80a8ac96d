"""Configuration as files: read, checked, compared with the store, applied to it, written out."""
