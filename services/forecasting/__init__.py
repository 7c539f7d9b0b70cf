"""Forecasts of what the city measures: several models, chosen by backtest, with intervals that hold."""
