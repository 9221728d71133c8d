"""How fast models compute: runtimes, and measuring them in turns."""
