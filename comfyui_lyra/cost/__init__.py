"""Bytes, operations and seconds of each stage, beforehand."""
