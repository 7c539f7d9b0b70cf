"""What the gateway does between HTTP and the services: exchange tokens, call, watch the city, run the verifier."""
