"""What the modules of this package share, under the official names."""
