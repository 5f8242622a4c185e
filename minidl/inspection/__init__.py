"""Looking at networks: what happens in them, as a table and as a picture."""
