"""The verdict, shown: on the terminal, as JSON, as an HTML page and as Markdown. Depends on the verdict model only."""
