"""Fine-tuning: a model that exists learns a task, by LoRA, QLoRA, or in all its weights."""
