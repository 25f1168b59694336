"""What will be made: cells with ids."""
