"""GEN3C's 3D cache: points of the first frames, warped to each camera."""
