"""The gateway plugin of triolet."""
