"""Views held whole in LMDB files, so that known and unknown keys are answered without the database."""
