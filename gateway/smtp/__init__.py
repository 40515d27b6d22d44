"""Mail comes in: one client's session, its transactions, and the acceptance of a message."""
