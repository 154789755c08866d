"""Nodes: camera paths."""
