"""A training as a process: loop, checkpoints, log, several GPUs, recorded steps."""
