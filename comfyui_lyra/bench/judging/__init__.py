"""What the mini world's truth tells: how good refined splats are, by settings, and how ways to film look."""
