"""docs/format.md in Python, a module a section. Sections are numbered as there."""
