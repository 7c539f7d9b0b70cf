"""Use cases of forecasting: one method per RPC, the models, and the backtest that picks among them. Called by `api`."""
