"""Running a mail domain without SQL: what its parts are called, and making them in one step or not at all."""
