"""Published weights, read without running anything, under this package's names."""
