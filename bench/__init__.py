"""Measures the gateway beside other mail systems: `python -m bench`, see `bench/README.md`."""
