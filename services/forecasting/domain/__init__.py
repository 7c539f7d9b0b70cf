"""Values and rules of forecasting: grids, cleaning, origins, selection, intervals. Standard library only."""
