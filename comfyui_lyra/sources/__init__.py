"""Depth estimates of all kinds to a geometry."""
