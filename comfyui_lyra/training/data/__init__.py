"""Samples to train from: stored ones, and those that the teacher makes meanwhile."""
