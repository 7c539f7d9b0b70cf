"""Programs that start the test images of Kafka and PostgreSQL; each runs on the image's Python with nothing else beside it."""
