"""Fuzzing of the model server: inside a process by coverage, and a whole server over sockets."""
