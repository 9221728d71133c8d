"""What is computed from the frames: frontiers, differences with intervals, loss increases, critical batches."""
