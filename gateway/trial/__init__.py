"""One message through the plugins of a site, and nothing of it stays: for `gateway try`."""
