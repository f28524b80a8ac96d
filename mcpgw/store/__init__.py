"""Where configuration, keys and secrets live: one SQLite file."""
