"""An SMTP relay that passes every message through a chain of plugins."""

__version__ = "0.1.0"
