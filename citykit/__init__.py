"""What every process of the city needs and no city rule."""
