"""Step, optimizer, parallel, checkpoint, metrics, progress. They know no task and no model."""
