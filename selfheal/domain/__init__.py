"""What the loop decides, without input or output: contract, records, monitoring, retraining, probation, model."""
