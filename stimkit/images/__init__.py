"""Pixels and light."""
