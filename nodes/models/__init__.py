"""Nodes: models, the plan and the check."""
