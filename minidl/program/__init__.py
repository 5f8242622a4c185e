"""Compiled steps: record a function once, improve the record, replay it at machine speed.

Reading order: program.py (what a record is), recorder.py (how it is made), passes/ (how it is
improved), numpy_executor.py and cupy_executor.py (how it is run), compile.py (what the user calls).
"""
