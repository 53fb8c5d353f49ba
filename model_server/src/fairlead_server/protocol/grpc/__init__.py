"""V2 over gRPC: messages, methods, server."""
