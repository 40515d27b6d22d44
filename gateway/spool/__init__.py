"""Accepted mail on disk."""
