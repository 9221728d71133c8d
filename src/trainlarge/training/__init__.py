"""The train stage: schedules, budgets, clocks, the Lightning module."""
