"""Fuzzing of everything that reads what strangers wrote: `python -m fuzz TARGET --seconds N`."""
