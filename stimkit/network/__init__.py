"""Pixels to feature maps to losses."""
