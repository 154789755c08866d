"""Lyra: pictures and videos to 3D and 4D Gaussian scenes. Knows torch and files, not ComfyUI."""
