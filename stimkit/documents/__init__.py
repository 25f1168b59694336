"""TOML that users write: read, located, told."""
