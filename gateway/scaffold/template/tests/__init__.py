"""Tests of the template, which become those of a new plugin."""
