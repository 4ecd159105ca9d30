"""What poison does to a live learner, with its guards and without them."""
