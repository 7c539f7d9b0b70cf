"""The models. Each learns from a panel of series and forecasts all of them at once; only the computing process imports them."""
