"""How good pictures and videos are, against others."""
