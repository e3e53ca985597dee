"""The networks: one readable file each, sizes from tiny to the published ones."""
