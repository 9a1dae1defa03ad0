"""Running the vision encoder and reading the attention rows HiRED needs on the way."""
