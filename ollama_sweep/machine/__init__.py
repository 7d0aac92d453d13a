"""This computer: its files, processes, clocks, sensors and ports. It knows nothing of sweeps, engines and databases."""
