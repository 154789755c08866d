"""Nodes: splats."""
