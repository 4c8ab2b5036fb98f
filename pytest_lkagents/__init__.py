"""A pytest plugin and conformance suite for deployments of LiveKit agents."""

__version__ = "0.1.0"
