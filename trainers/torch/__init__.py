"""The PyTorch side: models, optimizers, engine. Twin of `trainers.keras`."""
