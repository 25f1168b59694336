"""The version of stimkit."""

__version__ = "0.1.0"
