"""The suites every adapter must pass, and what tests of services need."""
