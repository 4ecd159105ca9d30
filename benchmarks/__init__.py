"""Figures with their peer or limit beside them."""
