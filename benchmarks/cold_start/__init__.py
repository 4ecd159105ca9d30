"""What is recommended of items that are new, and to users who are: with and without content."""
