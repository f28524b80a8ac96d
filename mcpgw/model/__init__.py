"""Plain data and seams. No I/O, no clock, no randomness."""
