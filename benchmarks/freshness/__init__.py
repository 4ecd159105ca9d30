"""What freshness is worth: one model that learns on, served with its updates withheld."""
