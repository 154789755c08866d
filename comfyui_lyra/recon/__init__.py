"""The splat decoder: latents and cameras of several videos to Gaussians."""
