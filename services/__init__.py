"""The services of the city, each in its own folder, and the composition root that knows them all."""
