"""The teacher, GEN3C: one picture or clip and a camera path to the latents of a video."""
