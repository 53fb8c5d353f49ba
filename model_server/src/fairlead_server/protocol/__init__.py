"""Wire forms: V1 and V2 REST, V2 gRPC; one error shape."""
