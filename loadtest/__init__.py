"""Load tests on the real API: visitors who hold conversations and know what they must be answered."""
