"""An upstream in this very process that behaves like a slow model, and a story told with it."""

from .upstream import DemoUpstream, Pace

__all__ = ["DemoUpstream", "Pace"]
