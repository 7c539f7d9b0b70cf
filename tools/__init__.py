"""What `make` calls: installation, generation, checks. Nothing of the city imports it."""
