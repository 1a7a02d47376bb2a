"""What policy delegation decides: who may send as whom, and how much."""
