"""What the database knows of lanes: attempts that are still measured elsewhere, and results that come late."""
