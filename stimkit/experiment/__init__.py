"""What observers see and answer."""
