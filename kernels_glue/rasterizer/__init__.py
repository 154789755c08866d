"""Drawing Gaussians: where they fall, how they cover pixels, and gsplat in their place."""
