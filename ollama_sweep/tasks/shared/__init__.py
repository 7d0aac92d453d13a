"""What several tasks use: prompt sets, their options, data files, scorers. No task lives here."""
