"""What a training will need on devices that need not be at hand."""
