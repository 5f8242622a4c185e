"""The rows of check_layer: one function each. The first line of its docstring is its title in the report."""
