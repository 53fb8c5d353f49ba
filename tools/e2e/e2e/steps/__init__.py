"""What is done and looked at, step by step."""
