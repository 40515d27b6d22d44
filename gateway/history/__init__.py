"""What happened to one message: told from the queue, the outbox and the log."""
