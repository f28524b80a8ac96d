"""Pure rules: no clock, no randomness, no I/O. Values in, values out."""
