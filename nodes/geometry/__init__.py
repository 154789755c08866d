"""Nodes: pictures, clips and their depth."""
