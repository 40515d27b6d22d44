"""What waits is attempted, settled, reported and shown."""
