"""Pictures, videos and depth maps on disk."""
