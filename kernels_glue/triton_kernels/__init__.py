"""Kernels of our own in Triton; the operation of the same name one folder up says what each computes."""
