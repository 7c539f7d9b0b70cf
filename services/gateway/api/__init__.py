"""The HTTP edge: JSON in, calls to services (`services.gateway.app`), JSON or problem details out."""
