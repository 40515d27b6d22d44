"""Tests of the documents, and what writes the part of them that is generated."""
