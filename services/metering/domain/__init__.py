"""The rules of metering: pure, deterministic, integers only, standard library only. Called by `app` and `contract`."""
