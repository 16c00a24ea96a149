"""Running pools in production: how large they have to be."""
