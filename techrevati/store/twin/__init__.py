"""The scripts in Python: the same transitions on plain records, to be read and to be tested against."""
