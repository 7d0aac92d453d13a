"""Sweep files that this program writes: `params`, `init`, configs/all_keys.yaml."""
