"""The user's API: ModelDeployment as pydantic models, and how a manifest file is read."""
