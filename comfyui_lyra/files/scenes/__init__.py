"""Scenes on disk: latents, geometry, ViPE's results, the reference's layout."""
