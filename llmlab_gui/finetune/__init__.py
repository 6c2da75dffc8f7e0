"""Fine-tuning: its set-up, the examples as the model reads them, and what an adapter changed."""
