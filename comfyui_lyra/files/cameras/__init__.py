"""Camera paths on disk."""
