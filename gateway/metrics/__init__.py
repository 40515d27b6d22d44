"""What the processes have counted, and how well they are: `/metrics` and `/health`."""
