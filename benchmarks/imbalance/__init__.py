"""What each setting against imbalance does to the lists, by event type and for rare items."""
