"""Who makes the cells: this process, shards, clusters."""
