"""The bundled plugins. Each uses the public API in `gateway.hooks` and nothing else of the core."""
