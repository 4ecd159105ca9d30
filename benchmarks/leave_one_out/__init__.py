"""Leave-one-out beside RecTools' SASRec, with the same budget of processor time."""
