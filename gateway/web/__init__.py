"""The HTTP service: what `http` hooks give, in the service process."""
