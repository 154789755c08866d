"""How good refined splats are: scenes with their truth, and trials of settings on them."""
