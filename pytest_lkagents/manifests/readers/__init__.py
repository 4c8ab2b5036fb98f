"""One module per format; each turns documents into the model."""
