"""Training the splat decoder by self-distillation: losses, draws, data, checkpoints, procedural scenes."""
