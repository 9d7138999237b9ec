"""What is read from any request, and how errors are answered."""
