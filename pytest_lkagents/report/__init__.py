"""The verdict, shown: on the terminal and as JSON. Depends on the verdict model only."""
