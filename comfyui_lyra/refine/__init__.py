"""Refinement: a few seconds of optimisation that make splats show what they were made from."""
