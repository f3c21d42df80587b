"""Recipes: one folder is one whole reproduction of a published result."""
