"""What is known of a stimulus, and tables of it."""
