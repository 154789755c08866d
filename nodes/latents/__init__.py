"""Nodes: videos along paths, as latents."""
