"""The wire formats, sans-I/O: bytes in, requests out; answers in, bytes out."""
