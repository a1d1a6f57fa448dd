"""NACL in other people's trainers: one module a library, each importing it where it is imported itself."""
