"""What `gateway plugin new` writes: the beginning of a plugin, as a package or as one file."""
