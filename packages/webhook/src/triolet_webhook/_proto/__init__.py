"""The gRPC messages: `wkhook.proto`, and what the build makes from it."""
