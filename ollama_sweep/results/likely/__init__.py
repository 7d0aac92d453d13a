"""What cells that were not measured are likely to be: told and drawn, and never rows."""
