"""The endpoint by gRPC: its protocol, and the Python that `make proto` writes of it."""
