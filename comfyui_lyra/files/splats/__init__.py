"""Splats on disk."""
