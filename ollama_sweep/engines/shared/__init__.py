"""What several engines use: failure texts, GGUF files, Modelfiles, processes of dead sessions. No engine lives here."""
