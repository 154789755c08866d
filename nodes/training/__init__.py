"""Nodes: training."""
