"""What this process runs on: cores, devices, memory, precision, step times and where a result comes from."""
