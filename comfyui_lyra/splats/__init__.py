"""Gaussian splats: what they are, cropping, drawing, a scene to try things on."""
