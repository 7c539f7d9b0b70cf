"""Programs that run inside a cluster beside the city."""
