"""A batch of problems to images."""
