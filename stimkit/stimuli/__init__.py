"""A cell to a batch; an image to a stimulus."""
