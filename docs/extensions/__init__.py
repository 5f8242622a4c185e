"""What the site needs besides Sphinx: the reference, and the sources as pages."""
