"""Diffusion without networks: processes, noise levels, samplers, guidance."""
