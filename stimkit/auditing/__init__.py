"""Is a run what it claims to be; make it again."""
