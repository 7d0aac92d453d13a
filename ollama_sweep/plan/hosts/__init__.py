"""Other hosts before anything is measured on them: are they there, and do both sides fit together?"""
