"""The demo city: the services, a replay clock and a simulated neighbourhood in one process. Started by `city run`."""
