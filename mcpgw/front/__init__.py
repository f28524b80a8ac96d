"""One file per way of being reached."""
