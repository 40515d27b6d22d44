"""The mail systems that are measured: the gateway and its peers."""
