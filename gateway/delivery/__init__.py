"""Mail goes out: routes, connections, transactions with the next hop."""
