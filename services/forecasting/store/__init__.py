"""Tables and queries of forecasting."""
