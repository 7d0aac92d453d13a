"""What several plots use: figures, text, colours, legends. No plot lives here."""
