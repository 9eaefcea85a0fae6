"""The release, read by the packaging and by `trio-sse-proxy --version`."""

__version__ = "0.1.0"
