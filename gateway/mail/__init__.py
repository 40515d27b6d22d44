"""A message: addresses, header, MIME parts, charsets. Pure."""
